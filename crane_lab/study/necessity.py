"""How much each single neuron is needed: the first-order reference that criteria are held against.

Every intermediate neuron is set to a constant, alone, and the mean next-token loss of held-out text
is measured again: its *necessity* for a language is the increase, in nats per token. Nothing is
approximated, and little is computed twice. Setting neuron i of layer l to v changes the output of
that layer's MLP by (v - a_i[t]) * W_down[:, i] at token t and nothing before it, so only what
follows is run (a norm, where the family has one there, and the blocks after l), from what the
untouched model had there, for many (neuron, text) pairs at a time. For the last layer that leaves
the final norm and the head.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.stats import false_discovery_control
from scipy.stats import t as students_t
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from tqdm import tqdm
from transformers import PreTrainedModel

from crane_core import models
from crane_core.kernels import fast_linear
from crane_core.selection import contrast_of
from crane_lab.stages.keys import model_key
from crane_lab.store import Store, atomic_path, source_digest

#: Neurons in one stored piece of a sweep: what an interruption costs at most.
CHUNK = 64
#: Consecutive groups of texts whose means are kept, for split-half reliability.
FOLDS = 8
#: The entry of a saved file's metadata.
_KIND = "crane_core.Necessity"
#: Positions whose vocabulary logits exist at one time.
_LOGIT_ROWS = 512

#: Above this many tokens causal attention is left to PyTorch's kernel.
_SHORT = 128

# ----------------------------------------------------------------------------- one neuron at a time


class ShortAttention(TorchFunctionMode):
    """Causal attention over short texts as plain products, two thirds of the CPU kernel's time."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        if func is F.scaled_dot_product_attention and len(args) == 3 and options.get("is_causal"):
            query, key, value = args
            tokens = query.shape[-2]
            if (
                query.device.type == "cpu"
                and query.shape == key.shape
                and tokens <= _SHORT
                and options.get("attn_mask") is None
                and not options.get("dropout_p")
            ):
                scale = options.get("scale") or query.shape[-1] ** -0.5
                flat = [x.reshape(-1, *x.shape[-2:]) for x in args]
                future = torch.full((tokens, tokens), -torch.inf, dtype=query.dtype).triu(1)
                scores = torch.baddbmm(future, flat[0], flat[1].transpose(1, 2), alpha=scale)
                return torch.bmm(scores.softmax(-1), flat[2]).view(value.shape)
        return func(*args, **options)


class Rest:
    """The rest of the model after a layer, and what reaches it on some texts untouched.

    `stream` is the residual stream after block `layer`, (texts, tokens - 1, hidden), `activations`
    what its `down_proj` reads, (texts, tokens - 1, neurons). Where a norm stands between the MLP
    and the stream, `residual` and `output` are the stream before the MLP and what `down_proj` puts
    out, shaped as `stream`. The last token of a text predicts nothing and is left out.
    """

    def __init__(self, model: PreTrainedModel, texts: Tensor, layer: int, batch_size: int) -> None:
        self.blocks = list(model.get_submodule(models.family(model).layers).children())
        self.norm = model.get_submodule(models.family(model).final_norm)
        self.head: nn.Module = model.get_output_embeddings()
        site = models.mlp_sites(model)[layer]
        self.weight = site.down_proj.get_parameter("weight")
        output_norm = models.family(model).mlp_output_norm
        self.output_norm = (
            None if output_norm is None else self.blocks[layer].get_submodule(output_norm)
        )
        self.after = self.blocks[layer + 1 :]
        self.targets = texts[:, 1:]
        self.arguments: list[dict[str, Any]] = [{} for _ in self.after]
        streams: list[Tensor] = []
        activations: list[Tensor] = []
        residuals: list[Tensor] = []
        outputs: list[Tensor] = []

        def keep_arguments(i: int) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self.arguments[i] = kwargs

            return hook

        def keep_stream(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            streams.append(output if isinstance(output, Tensor) else output[0])

        def keep_activations(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            activations.append(args[0])

        def keep_residual(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            residuals.append(args[0])

        def keep_output(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            outputs.append(output)

        handles = [
            self.blocks[layer].register_forward_hook(keep_stream),
            site.down_proj.register_forward_pre_hook(keep_activations),
        ]
        handles += [
            block.register_forward_pre_hook(keep_arguments(i), with_kwargs=True)
            for i, block in enumerate(self.after)
        ]
        if self.output_norm is not None:
            before_mlp = models.stream_norms(model)[2 * layer + 1]
            handles += [
                before_mlp.register_forward_pre_hook(keep_residual),
                site.down_proj.register_forward_hook(keep_output),
            ]
        try:
            for part in texts[:, :-1].split(batch_size):
                model.base_model(input_ids=part, use_cache=False)
            self.stream, self.activations = torch.cat(streams), torch.cat(activations)
            if self.output_norm is not None:
                self.residual, self.output = torch.cat(residuals), torch.cat(outputs)
            # Positions are the same in every text: the arguments of one serve any number of them.
            model.base_model(input_ids=texts[:1, :-1], use_cache=False)
        finally:
            for handle in handles:
                handle.remove()

    def changed(self, here: slice, change: Tensor, ways: Tensor) -> Tensor:
        """The stream after the layer, (group, texts, tokens - 1, hidden), had its MLP put out
        `change` (group, texts, tokens - 1) times `ways` (group, 1, 1, hidden) more."""
        if self.output_norm is None:
            return torch.addcmul(self.stream[here], change[..., None], ways)
        output = torch.addcmul(self.output[here], change[..., None], ways)
        return self.residual[here] + self.output_norm(output)

    def states(self, stream: Tensor) -> Tensor:
        """What the head reads, (texts, tokens - 1, hidden), from the stream after the layer."""
        for block, arguments in zip(self.after, self.arguments, strict=True):
            output = block(stream, **arguments)
            stream = output if isinstance(output, Tensor) else output[0]
        found: Tensor = self.norm(stream)
        return found

    def losses(self, stream: Tensor, targets: Tensor) -> Tensor:
        """Mean next-token loss of each text, float64 (texts,), from the stream after the layer."""
        return self.losses_of(self.states(stream), targets)

    def losses_of(self, states: Tensor, targets: Tensor) -> Tensor:
        """The same from what the head reads."""
        states = states.flatten(0, 1)
        pieces = zip(states.split(_LOGIT_ROWS), targets.flatten().split(_LOGIT_ROWS), strict=True)
        losses = torch.cat([self._loss(part, next_) for part, next_ in pieces])
        return losses.view_as(targets).double().mean(1)

    def _loss(self, states: Tensor, targets: Tensor) -> Tensor:
        logits = self.head(states)
        right = logits.gather(1, targets[:, None])[:, 0]
        total = logits.exp_().sum(1)  # in place: the logits are needed no more
        if bool(((total == 0) | ~total.isfinite()).any()):
            return self.head(states).logsumexp(1) - right
        return total.log() - right


@torch.no_grad()
def require_linear_head(model: PreTrainedModel) -> None:
    """Raise ValueError for a model whose head is more than a matrix."""
    if not models.linear_head(model):
        raise ValueError(
            "single ablations need logits that are a matrix times the last hidden state; this "
            f"{model.config.model_type!r} model's are not"
        )


def texts_each(texts: Mapping[str, Tensor]) -> int:
    """How many texts each language has; ValueError unless as many, `FOLDS` at least, of two."""
    counts = {x: len(windows) for x, windows in texts.items()}
    if len(texts) < 2 or len(set(counts.values())) != 1 or min(counts.values()) < FOLDS:
        raise ValueError(
            f"texts per language: {counts}; expected at least two languages with the same number, "
            f"{FOLDS} or more"
        )
    return next(iter(counts.values()))


def single_effects(
    model: PreTrainedModel,
    texts: Tensor,
    layer: int,
    neurons: Sequence[int],
    values: Sequence[float | Tensor] = (0.0,),
    batch_size: int = 16,
) -> tuple[Tensor, Tensor]:
    """The loss of every text with one intermediate neuron of a layer set to a constant.

    Parameters
    ----------
    model : as it is now, so inside `masking.masked` these are effects on top of the mask.
    texts : int64 (texts, tokens), equally long and without padding.
    layer, neurons : which neurons, one at a time.
    values : what they are set to, at every token: numbers, or tensors (neurons of the layer,).
    batch_size : texts that are run at once, whichever neuron they are for.

    Returns
    -------
    The mean next-token loss of each text in nats per token, float64: untouched, (texts,), and under
    each ablation, (values, neurons, texts). Both come out of the same computation, so that what
    they share of rounding cancels in the difference.

    Raises ValueError for texts that are not (n >= 1, t >= 2), neurons or a layer that the model
    does not have, a batch size below 1, a model whose head is more than a matrix, and if a loss is
    not finite.
    """
    layers, width = models.shape(model)["intermediate"]
    if texts.dim() != 2 or texts.shape[0] < 1 or texts.shape[1] < 2:
        raise ValueError(f"expected texts (n >= 1, t >= 2), got shape {tuple(texts.shape)}")
    if not 0 <= layer < layers or any(not 0 <= i < width for i in neurons):
        raise ValueError(
            f"layer {layer}, neurons {min(neurons, default=0)} to {max(neurons, default=0)}: the "
            f"model has {layers} layers of {width} intermediate neurons"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    require_linear_head(model)
    texts = texts.to(model.device)
    with fast_linear(), ShortAttention():
        cache = Rest(model, texts, layer, batch_size)
        index = torch.tensor(list(neurons), dtype=torch.long, device=texts.device)
        directions = cache.weight[:, index].t()  # (neurons, hidden)
        set_to = torch.stack(
            [
                torch.as_tensor(value, dtype=cache.stream.dtype, device=texts.device).expand(width)
                for value in values
            ]
        )[:, index]
        found = torch.empty(len(values), len(neurons), len(texts), dtype=torch.float64)
        untouched = torch.empty(len(texts), dtype=torch.float64)
        at_once = min(batch_size, len(texts))
        pairs = [(v, i) for v in range(len(values)) for i in range(len(neurons))]
        together = max(1, batch_size // at_once)
        for start in range(0, len(texts), at_once):
            here = slice(start, start + at_once)
            stream, targets = cache.stream[here], cache.targets[here]
            read = cache.activations[here][..., index]
            untouched[here] = cache.losses(stream, targets).cpu()
            for first in range(0, len(pairs), together):
                group = pairs[first : first + together]
                change = torch.stack([set_to[v, i] - read[..., i] for v, i in group])
                ways = directions[[i for _, i in group]][:, None, None]
                changed = cache.changed(here, change, ways)
                losses = cache.losses(changed.flatten(0, 1), targets.repeat(len(group), 1)).view(
                    len(group), -1
                )
                for (v, i), loss in zip(group, losses, strict=True):
                    found[v, i, here] = loss.cpu()
    if not (found.isfinite().all() and untouched.isfinite().all()):
        raise ValueError(
            f"a loss under ablation of a neuron of layer {layer} is not finite; check the weights"
        )
    return untouched, found


# ------------------------------------------------------------------------------------- all of them


@dataclass(frozen=True)
class Estimate:
    """Estimates with their standard errors over texts, both float64 (layers, neurons).

    `freedom`: the errors' degrees of freedom, the same shape; None: one less than there are texts.
    """

    value: Tensor
    error: Tensor
    freedom: Tensor | None = None

    def less(self, other: Estimate) -> Estimate:
        """The difference to another estimate from texts of its own (Welch and Satterthwaite)."""
        mine, theirs = self.error.square(), other.error.square()
        freedom = None
        if self.freedom is not None and other.freedom is not None:
            parts = mine.square() / self.freedom + theirs.square() / other.freedom
            freedom = ((mine + theirs).square() / parts).nan_to_num(1.0)
        return Estimate(self.value - other.value, (mine + theirs).sqrt(), freedom)


class Necessity:
    """Loss increases of all single ablations in every language, with errors over texts.

    Attributes
    ----------
    effects : value name ("zero", "mean") -> language -> `Estimate` in nats per token.
    folds : the same as means of `FOLDS` consecutive groups of texts, (folds, layers, neurons).
    set_to : value name -> what the neurons were set to, (layers, neurons).
    n_texts : texts per language.
    source : what the sweep depends on, as JSON: fingerprints of model and corpora, and so on.
    """

    def __init__(
        self,
        effects: Mapping[str, Mapping[str, Estimate]],
        folds: Mapping[str, Mapping[str, Tensor]],
        set_to: Mapping[str, Tensor],
        n_texts: int,
        source: Mapping[str, Any],
    ) -> None:
        self.effects, self.folds = effects, folds
        self.set_to, self.n_texts, self.source = set_to, n_texts, source

    @property
    def values(self) -> list[str]:
        """The names of the values that neurons were set to."""
        return list(self.effects)

    @property
    def languages(self) -> list[str]:
        """The languages whose loss was measured."""
        return list(next(iter(self.effects.values())))

    def necessity(self, language: str, value: str = "zero") -> Estimate:
        """Increase in `language`'s loss by each neuron's ablation, nats per token."""
        return self._of(value)[self._known(language)]

    def selectivity(self, language: str, value: str = "zero") -> Estimate:
        """Necessity for `language` minus the largest for another language, nats per token.

        The error is that of the difference between the two languages it then compares; texts of
        different languages are independent. That the largest of several noisy numbers is taken
        makes selectivity a little too low rather than too high.
        """
        own, others = self.necessity(language, value), self._others(language, value)
        most = torch.stack([other.value for other in others]).max(0)
        errors = torch.stack([other.error for other in others])
        error = errors.gather(0, most.indices[None])[0]
        return Estimate(own.value - most.values, (own.error.square() + error.square()).sqrt())

    def selectivity_folds(self, language: str, value: str = "zero") -> Tensor:
        """Selectivity from each group of texts alone, (folds, layers, neurons)."""
        return contrast_of(self.folds[value], self._known(language))

    def p_values(self, language: str, kind: str, value: str = "zero") -> Tensor:
        """One-sided p-values, float64 (layers, neurons).

        `kind` "necessity": against an increase of zero or less in `language`. "selectivity":
        against the hypothesis that the increase in `language` is at most zero or at most that in
        some other language; it is the largest of the p-values of these comparisons, since all of
        them must be rejected. Student's t with n_texts - 1 degrees of freedom, or the estimate's.

        Raises ValueError for an unknown language, value or kind.
        """
        own = self.necessity(language, value)
        compared = [own]
        if kind == "selectivity":
            compared += [own.less(other) for other in self._others(language, value)]
        elif kind != "necessity":
            raise ValueError(f"unknown kind {kind!r}: expected 'necessity' or 'selectivity'")
        found = []
        for estimate in compared:
            # A neuron that changes nothing has error 0: no evidence, so p = 1.
            score = torch.where(estimate.error > 0, estimate.value / estimate.error, -torch.inf)
            free = self.n_texts - 1 if estimate.freedom is None else estimate.freedom.numpy()
            found.append(torch.from_numpy(students_t.sf(score.numpy(), free)))
        return torch.stack(found).amax(0)

    def significant(
        self, language: str, kind: str, value: str = "zero", level: float = 0.05
    ) -> Tensor:
        """Neurons whose p-value passes Benjamini and Hochberg's procedure, bool (layers, neurons).

        Among those called significant for one language, at most a share `level` is expected to be
        so by chance (all neurons of the model are tested together).

        Raises ValueError for a level outside (0, 1), and what `p_values` raises.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}: expected a false-discovery rate between 0 and 1")
        p = self.p_values(language, kind, value)
        adjusted = false_discovery_control(p.flatten().numpy(), method="bh")
        return torch.from_numpy(adjusted <= level).view_as(p)

    def _of(self, value: str) -> Mapping[str, Estimate]:
        if value not in self.effects:
            raise ValueError(f"no ablation to {value!r}: there are {self.values}")
        return self.effects[value]

    def _known(self, language: str) -> str:
        if language not in self.languages:
            raise ValueError(f"no effects on language {language!r}: there are {self.languages}")
        return language

    def _others(self, language: str, value: str) -> list[Estimate]:
        effects = self._of(value)
        return [effects[x] for x in self.languages if x != self._known(language)]

    # -- on disk ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a safetensors file in one step, with a checksum of the numbers."""
        tensors = {f"set_to.{name}": tensor.float() for name, tensor in self.set_to.items()}
        for value, by_language in self.effects.items():
            for x, estimate in by_language.items():
                tensors[f"{value}.{x}.effect"] = estimate.value.float()
                tensors[f"{value}.{x}.error"] = estimate.error.float()
                tensors[f"{value}.{x}.folds"] = self.folds[value][x].float()
        about = {
            "unit": "nats per token",
            "values": self.values,
            "languages": self.languages,
            "n_texts": self.n_texts,
            "source": self.source,
            "sha256": _checksum(tensors),
        }
        # One entry only: safetensors writes several in any order.
        metadata = {_KIND: json.dumps(about, sort_keys=True, ensure_ascii=False)}
        with atomic_path(Path(path)) as temporary:
            save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Necessity:
        """Read what `save` wrote.

        Raises FileNotFoundError, or ValueError if the file is damaged, altered or something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no single-ablation effects at {path}")
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        except SafetensorError as error:
            raise ValueError(f"{path} is no readable safetensors file: {error}") from error
        if _KIND not in metadata:
            raise ValueError(f"{path} holds no single-ablation effects")
        about = json.loads(metadata[_KIND])
        if _checksum(tensors) != about["sha256"]:
            raise ValueError(f"{path} was altered: its numbers do not fit their checksum")
        values, languages = about["values"], about["languages"]
        return cls(
            {
                v: {
                    x: Estimate(
                        tensors[f"{v}.{x}.effect"].double(), tensors[f"{v}.{x}.error"].double()
                    )
                    for x in languages
                }
                for v in values
            },
            {v: {x: tensors[f"{v}.{x}.folds"].double() for x in languages} for v in values},
            {v: tensors[f"set_to.{v}"] for v in values},
            int(about["n_texts"]),
            about["source"],
        )

    def require_source(self, source: Mapping[str, Any]) -> None:
        """Raise ValueError, naming what differs, unless the sweep depended on all of `source`."""
        names = [name for name in source if self.source.get(name) != source[name]]
        if names:
            raise ValueError(
                "these single-ablation effects were measured under other conditions ("
                + "; ".join(
                    f"{n}: {self.source.get(n)!r} there, {source.get(n)!r} here"
                    for n in sorted(names)
                )
                + "); measure them again (recompute_necessity = True)"
            )


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def measure(
    model: PreTrainedModel,
    texts: Mapping[str, Tensor],
    set_to: Mapping[str, Tensor],
    source: Mapping[str, Any],
    store: Store | None = None,
    batch_size: int = 64,
) -> Necessity:
    """Ablate every intermediate neuron, one at a time, and measure every language's loss.

    Parameters
    ----------
    model : the model, unmasked.
    texts : language -> held-out texts, int64 (texts, tokens), as many for every language.
    set_to : name -> the constants (layers, neurons), such as "zero" and "mean".
    source : what identifies model and texts, as JSON, to be carried along.
    store : where finished pieces are kept, `CHUNK` neurons of one layer in one language each, so
        that an interrupted sweep goes on where it stopped.
    batch_size : texts that are run at once.

    Returns the effects. Repeated with the same number of threads they are the same to the bit.

    Raises ValueError for fewer than two languages, texts that differ in number or are fewer than
    `FOLDS`, constants of another shape, and what `single_effects` raises it for.
    """
    size = models.shape(model)["intermediate"]
    texts_each(texts)
    for name, constants in set_to.items():
        if tuple(constants.shape) != size:
            raise ValueError(
                f"constants {name!r} have shape {tuple(constants.shape)}; (layers, neurons) is "
                f"{size}"
            )
    store = store or Store()
    layers, width = size
    key = {
        "model": model_key(model),
        "batch_size": batch_size,
        "code": source_digest(__name__),
    }
    increases = {
        x: torch.empty(len(set_to), layers, width, len(windows), dtype=torch.float64)
        for x, windows in texts.items()
    }

    def measured(number: int, x: str, layer: int, first: int) -> None:
        constants, windows = list(set_to.values())[number], texts[x]
        chosen = range(first, min(first + CHUNK, width))

        def compute() -> dict[str, Tensor]:
            untouched, found = single_effects(
                model, windows, layer, chosen, [constants[layer]], batch_size
            )
            return {"increase": found[0] - untouched}

        own = {
            **key,
            "texts": tensor_digest(windows),
            "layer": layer,
            "neurons": [chosen.start, chosen.stop],
            "constants": tensor_digest(constants[layer, chosen.start : chosen.stop]),
        }
        piece = store.tensors("necessity", own, compute)["increase"]
        increases[x][number, layer, chosen.start : chosen.stop] = piece

    pieces = itertools.product(range(len(set_to)), texts, range(layers), range(0, width, CHUNK))
    total = len(set_to) * len(texts) * layers * -(-width // CHUNK)
    bar = tqdm(pieces, total=total, desc="ablating single neurons", unit="piece")
    store.together(partial(measured, *piece) for piece in bar)
    return summarise(increases, set_to, source)


def tensor_digest(tensor: Tensor) -> str:
    """20 hexadecimal digits of the SHA-256 of a tensor's values, for the keys of a store."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:20]


def summarise(
    increases: Mapping[str, Tensor], set_to: Mapping[str, Tensor], source: Mapping[str, Any]
) -> Necessity:
    """Means, standard errors and group means over texts.

    `increases`: language -> loss increase of every text, float64 (values, layers, neurons, texts),
    the values in the order of `set_to`.
    """
    effects: dict[str, dict[str, Estimate]] = {name: {} for name in set_to}
    folds: dict[str, dict[str, Tensor]] = {name: {} for name in set_to}
    n = next(iter(increases.values())).shape[-1]
    for x, found in increases.items():
        for name, increase in zip(set_to, found, strict=True):
            effects[name][x] = Estimate(increase.mean(-1), increase.std(-1) / n**0.5)
            groups: Iterable[Tensor] = increase.tensor_split(FOLDS, dim=-1)
            folds[name][x] = torch.stack([group.mean(-1) for group in groups])
    return Necessity(effects, folds, dict(set_to), n, dict(source))
