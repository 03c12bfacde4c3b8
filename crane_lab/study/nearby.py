"""Single ablations in a large vocabulary: what they cost little, with what they cost in full.

Of a model with a quarter of a million tokens the output embedding is most of the work, and a single
neuron hardly changes what it reads. With p the untouched model's probabilities at a place, and d
the change of the state that the head reads there,

    loss increase = log(sum over tokens v of p(v) exp(w_v d)) - w_target d.

`Nearby` takes this sum exactly over the likeliest tokens. Of the rest it takes the mass and the
mean direction exactly, and what is beyond these from tokens drawn by their probability. A text
whose loss moves far is run through the whole head again.

`first_order` is the increase that the loss's gradient says, for every neuron in one backward pass.
It is nowhere near exact, but on a text where it is too high the true increase mostly is high too:
known on many texts, it takes most of the noise out of what was measured on few (`two_phase`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from crane_core import models
from crane_core.attribution import ready
from crane_core.kernels import inference
from crane_lab.study.necessity import Rest, ShortAttention

#: Tokens per place that are taken exactly, and that are drawn from all others.
LIKELY, DRAWN = 1024, 1024
#: Nats per token by which a text's loss may move before the whole head is asked.
FAR = 0.2
#: Places whose vocabulary logits exist at one time.
_PLACES = 128


class Nearby:
    """Loss increases for states near those of the untouched model.

    Parameters
    ----------
    head : the output embedding.
    states : what the head reads in the untouched model, (places, hidden).
    targets : the tokens to predict, int64 (places,).
    """

    @inference()
    def __init__(self, head: nn.Module, states: Tensor, targets: Tensor) -> None:
        self.weight = head.get_parameter("weight")
        self.targets = targets
        tokens = len(self.weight)
        likely = min(LIKELY, tokens) if tokens > LIKELY + DRAWN else tokens
        grid = (torch.arange(DRAWN, dtype=torch.float32, device=states.device) + 0.5) / DRAWN
        parts = []
        for part in states.split(_PLACES):
            p = _probabilities(head, part)
            top = p.topk(likely)
            p.scatter_(1, top.indices, 0.0)
            rest = p.sum(1, keepdim=True)
            mean = (p @ self.weight) / rest.clamp(min=1e-30)
            # Evenly spaced in the mass of the rest: the same tokens each time, all scripts in it.
            total = p.cumsum(1)
            drawn = torch.searchsorted(total, grid * total[:, -1:]).clamp(max=tokens - 1)
            parts.append((top.values, top.indices, rest[:, 0], mean, drawn))
        self.p, self.likely, self.rest, self.mean, self.drawn = (
            torch.cat(kind) for kind in zip(*parts, strict=True)
        )

    def increases(self, states: Tensor, first: int = 0) -> Tensor:
        """Loss increases (group, places) from states[0] to all of `states` (group, places, hidden).

        The places are those from `first` on; states[0] are the untouched model's.
        """
        found = torch.empty(states.shape[:2], dtype=torch.float64)
        for j in range(states.shape[1]):
            place = first + j
            change = states[:, j] - states[0, j]
            total = (change @ self.weight[self.likely[place]].t()).exp_() @ self.p[place]
            if self.rest[place] > 0 and len(self.p[place]) < len(self.weight):
                moved = change @ self.weight[self.drawn[place]].t()
                moved -= moved.mean(1, keepdim=True)
                beyond = moved.exp_().mean(1)
                total += self.rest[place] * (change @ self.mean[place]).exp() * beyond
            found[:, j] = (total.log() - change @ self.weight[self.targets[place]]).cpu()
        return found


@inference()
def increases(
    model: PreTrainedModel,
    texts: Tensor,
    layer: int,
    neurons: Sequence[int],
    value: Tensor,
    near: Nearby,
    batch_size: int = 8,
) -> Tensor:
    """What `necessity.single_effects` measures, less the untouched loss; (neurons, texts), float64.

    Parameters
    ----------
    texts : int64 (texts, tokens), those whose places `near` knows, in order.
    layer, neurons, value : which neurons are set to which constants (neurons of the layer,).
    batch_size : texts that are run at once.

    Raises ValueError if a loss is not finite.
    """
    texts = texts.to(model.device)
    found = torch.empty(len(neurons), len(texts), dtype=torch.float64)
    with ShortAttention():
        rest = Rest(model, texts, layer, batch_size)
        places = texts.shape[1] - 1
        for start in range(0, len(texts), batch_size):
            here = slice(start, start + batch_size)
            read, targets = rest.activations[here], rest.targets[here]
            states = [rest.states(rest.stream[here])]
            for i in neurons:
                change = (value[i].to(read) - read[..., i])[None]
                states.append(
                    rest.states(
                        rest.changed(here, change, rest.weight[:, i].expand(1, 1, 1, -1))[0]
                    )
                )
            together = torch.stack(states)
            moved = near.increases(together.flatten(1, 2), start * places)
            by_text = moved.view(len(states), -1, places).mean(-1)[1:]
            for i, text in ((~(by_text.abs() <= FAR)).nonzero()).tolist():
                both = together[[0, i + 1], text]
                before, after = rest.losses_of(both, targets[text].expand(2, -1))
                by_text[i, text] = after - before
            found[:, here] = by_text
    if not found.isfinite().all():
        raise ValueError(
            f"a loss under ablation of a neuron of layer {layer} is not finite; check the weights"
        )
    return found


@inference()
def near_texts(model: PreTrainedModel, texts: Tensor, batch_size: int = 8) -> Nearby:
    """`Nearby` for all places of texts, int64 (texts, tokens); the last token predicts nothing."""
    texts = texts.to(model.device)
    with ShortAttention():
        states = torch.cat(
            [
                model.base_model(input_ids=part[:, :-1], use_cache=False).last_hidden_state
                for part in texts.split(batch_size)
            ]
        )
    return Nearby(model.get_output_embeddings(), states.flatten(0, 1), texts[:, 1:].flatten())


def first_order(
    model: PreTrainedModel, texts: Tensor, set_to: Mapping[str, Tensor], batch_size: int = 8
) -> Tensor:
    """Increase of each text's loss by each single ablation, as the gradient has it.

    Parameters
    ----------
    texts : int64 (texts, tokens).
    set_to : name -> the constants, (layers, neurons).

    Returns float32 (values, texts, layers, neurons), nats per token, values in `set_to`'s order.
    """
    parts = []
    for part in texts.to(model.device).split(batch_size):
        with ready(model, "gradient"):
            states, read = _read(model, part[:, :-1])
            slope = _slope(model.get_output_embeddings(), states.detach(), part[:, 1:])
            slopes = torch.autograd.grad(states, read, slope / states.shape[1])
        # The increase is (constant - activation) times slope, summed over tokens.
        sums = torch.stack([g.sum(1) for g in slopes], 1)
        own = torch.stack([(a.detach() * g).sum(1) for a, g in zip(read, slopes, strict=True)], 1)
        parts.append(torch.stack([v.to(sums) * sums - own for v in set_to.values()]).cpu())
    return torch.cat(parts, 1)


def _read(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What the head reads, and what each `down_proj` reads, from one graph."""
    read: list[Tensor] = []

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        read.append(args[0] if read else args[0].detach().requires_grad_())
        return (read[-1],)

    sites = models.mlp_sites(model)
    handles = [site.down_proj.register_forward_pre_hook(watch) for site in sites]
    try:
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return states, read


@torch.no_grad()
def _slope(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    """Gradient of each place's next-token loss in what the head reads, as `states`."""
    weight, parts = head.get_parameter("weight"), []
    pieces = zip(states.flatten(0, 1).split(_PLACES), targets.flatten().split(_PLACES), strict=True)
    for part, next_ in pieces:
        p = _probabilities(head, part)
        parts.append(p @ weight - weight[next_])
    return torch.cat(parts).view_as(states)


def _probabilities(head: nn.Module, states: Tensor) -> Tensor:
    """The model's probabilities, (places, tokens); one copy of the logits at a time."""
    logits: Tensor = head(states)
    p = logits.sub_(logits.amax(1, keepdim=True)).exp_()
    return p.div_(p.sum(1, keepdim=True))
