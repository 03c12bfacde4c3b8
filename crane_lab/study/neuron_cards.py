"""What is known of single neurons: relevance text by text and token by token, lists, and sets.

A second, shorter pass over the attribution windows keeps what the streams do not: every neuron's
relevance in each window, and its relevance at every token of the windows where it is largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from crane_core.attribution import neuron_relevance, ready
from crane_core.families import mlp_sites, shape
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.stages.methods import METHODS
from crane_lab.store import source_digest
from crane_lab.study.criteria import RELATIVE, Score, order
from crane_lab.study.necessity import Necessity

#: Windows per language that are read, at most.
WINDOWS = 256
#: Windows per language that are kept token by token, for each neuron.
TOPS = 2
#: Neurons of a model of which all are read; of a larger one those on lists alone.
MOST = 2500
#: Neurons on a list of the first ones, and on the list of random ones.
FIRST, DRAWN = 16, 32


@dataclass(frozen=True)
class Cards:
    """Relevance of some neurons in some windows of every language, in logits.

    Attributes
    ----------
    neurons : places in the flattened (layers, neurons), int64 (k,).
    size : layers, neurons per layer.
    windows : language -> token ids, int64 (n, tokens).
    values : language -> relevance in each window, float32 (n, k).
    tops : language -> the windows in which a neuron's |relevance| is largest, int64 (k, TOPS).
    tokens : language -> its relevance at each of their tokens, float32 (k, TOPS, tokens).
    """

    neurons: Tensor
    size: tuple[int, int]
    windows: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    tops: Mapping[str, Tensor]
    tokens: Mapping[str, Tensor]


def relevance_by_token(
    model: PreTrainedModel, input_ids: Tensor, neurons: Tensor, **how: Any
) -> tuple[Tensor, Tensor]:
    """`neuron_relevance` of some neurons, summed over tokens and at every token.

    Parameters
    ----------
    input_ids : (samples, tokens), without padding.
    neurons : places in the flattened (layers, neurons), int64 (k,), in rising order.
    how : `neuron_relevance`'s objective, reduction and opening.

    Returns (samples, k) and (samples, tokens, k), float32, on the CPU; the second is never divided
    by the number of tokens, and is 0 at those of the opening. Raises ValueError for neurons that do
    not rise, and what `neuron_relevance` raises it for.
    """
    sites = mlp_sites(model)
    width = shape(model)["intermediate"][1]
    if len(neurons) and not bool((neurons.diff() > 0).all()):
        raise ValueError("neurons are expected in rising order, each once")
    own = [neurons[neurons // width == layer] % width for layer in range(len(sites))]
    kept: dict[int, Tensor] = {}

    def hook(layer: int, units: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            here = args[0].requires_grad_()
            values = here.detach()

            def on_gradient(gradient: Tensor) -> None:
                kept[layer] = (values[..., units] * gradient[..., units]).float().cpu()

            here.register_hook(on_gradient)

        return watch

    with ready(model, "attnlrp"), ExitStack() as hooks:
        for layer, (site, units) in enumerate(zip(sites, own, strict=True)):
            if len(units):
                handle = site.down_proj.register_forward_pre_hook(hook(layer, units))
                hooks.callback(handle.remove)
        found = neuron_relevance(model, input_ids, **how)
    tokens = torch.cat([kept[layer] for layer in sorted(kept)], dim=-1)
    tokens[:, : how.get("opening", 0)] = 0
    return found.flatten(1)[:, neurons.to(found.device)].cpu(), tokens


def neuron_cards(pipeline: Pipeline, neurons: Tensor, most: int = WINDOWS) -> Cards:
    """Read the first `most` windows of every language for some neurons; kept in the store.

    `neurons`: int64 (k,), places in the flattened (layers, neurons), in rising order.
    """
    s, size = pipeline.settings, pipeline.shape["intermediate"]
    windows = {x: pipeline.windows[x][:most] for x in s.languages}
    how = {name: value for name, value in pipeline.how.items() if name != "score"}

    def of(language: str) -> dict[str, Tensor]:
        key = {
            **pipeline.relevance_key(language),
            "neurons": neurons.tolist(),
            "windows": most,
            "tops": TOPS,
            "code": source_digest(__name__),
        }
        compute = partial(_read, pipeline, windows[language], neurons, how)
        return pipeline.store.tensors("neuron-cards", key, compute)

    found = pipeline.by_language(of)
    return Cards(
        neurons,
        size,
        windows,
        **{
            name: {x: own[name] for x, own in found.items()}
            for name in ("values", "tops", "tokens")
        },
    )


def _read(
    pipeline: Pipeline, windows: Tensor, neurons: Tensor, how: Mapping[str, Any]
) -> dict[str, Tensor]:
    tops = min(TOPS, len(windows))
    values: list[Tensor] = []
    best = torch.full((len(neurons), tops), -1.0)
    places = torch.zeros(len(neurons), tops, dtype=torch.int64)
    tokens = torch.zeros(len(neurons), tops, windows.shape[1])
    start = 0
    for part in windows.split(pipeline.settings.batch_size):
        sums, by_token = relevance_by_token(pipeline.model, part, neurons, **how)
        values.append(sums)
        # Of the best so far and those of this batch, the best: (k, tops + samples).
        both = torch.cat([best, sums.abs().T], dim=1)
        best, taken = both.topk(tops, dim=1)
        known = torch.cat(
            [places, torch.arange(start, start + len(part)).expand(len(neurons), -1)], 1
        )
        places = known.gather(1, taken)
        old = tokens.gather(1, taken.clamp(max=tops - 1)[..., None].expand(-1, -1, tokens.shape[2]))
        new = by_token[(taken - tops).clamp(min=0), :, torch.arange(len(neurons))[:, None]]
        tokens = torch.where((taken < tops)[..., None], old, new)
        start += len(part)
    return {"values": torch.cat(values), "tops": places, "tokens": tokens}


# --- which neurons --------------------------------------------------------------------------------

#: (what the list is of, language; "" for none) -> places in the flattened (layers, neurons).
Lists = Mapping[tuple[str, str], Sequence[int]]
RANDOM_LIST = "random"


def neuron_lists(
    scores: Mapping[str, Score], necessity: Necessity, first: Mapping[str, str], seed: int = 0
) -> dict[tuple[str, str], list[int]]:
    """Neurons to look at: the most needed of each language, the first of criteria, random ones.

    `first`: what a list is called -> the criterion of `scores` whose order it follows.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for x in necessity.languages:
        found["most needed", x] = order(necessity.necessity(x).value)[:FIRST].tolist()
    for name, criterion in first.items():
        for x, score in scores[criterion].items():
            found[f"first of {name}", x] = order(score)[:FIRST].tolist()
    total = next(iter(next(iter(scores.values())).values())).numel()
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:DRAWN]
    return {**found, (RANDOM_LIST, ""): sorted(drawn.tolist())}


def neurons_to_read(lists: Lists, size: tuple[int, int]) -> Tensor:
    """All neurons of a small model, those on lists of a larger one: int64 (k,), rising."""
    total = size[0] * size[1]
    if total <= MOST:
        return torch.arange(total)
    return torch.tensor(sorted({place for own in lists.values() for place in own}))


def sets_of_methods(
    pipeline: Pipeline, scores: Mapping[str, Score]
) -> dict[str, Mapping[str, NeuronSet]]:
    """CRANE's sets, and as many neurons by LAPE's order and by the relative contrast."""
    crane = pipeline.neuron_sets("intermediate")
    size = pipeline.shape["intermediate"]
    relative = {
        x: NeuronSet.from_flat(order(scores[RELATIVE][x])[: len(own)], size)
        for x, own in crane.items()
    }
    matched = METHODS["LAPE matched"](pipeline, crane)
    return {"CRANE": crane, "LAPE matched": matched, "relative contrast": relative}
