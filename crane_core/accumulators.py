"""What is kept of a stream of texts, and the one pass that feeds all of it (Algorithm 1).

An `Accumulator` takes in batches and keeps a summary whose size does not grow with them. Two can be
merged, and each can be written down as tensors and read back, so a stream can be cut into pieces,
interrupted and shared. `one_pass` runs a batch forward, and backward where an accumulator reads
relevance, and hands every reader its part: CRANE's moments at any site, LAPE's counts of active
tokens, means and quantiles of activations, and the other statistics, for the price of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from crane_core.attribution import POINTS, ready, relevance_at
from crane_core.families import mlp_sites, padded_inputs
from crane_core.kernels import fast_linear
from crane_core.windows import first_column, scored_tokens

#: Where activations are read: what `act_fn` takes in; what it puts out, which LAPE counts; and what
#: `down_proj` reads, which a mask replaces.
ACTIVATIONS = ("pre_act", "act_fn", "unit")
#: What an accumulator can read: relevance, (samples, layers, width), at one of `POINTS`, or
#: `LayerValues` of one of `ACTIVATIONS`.
READS = (*POINTS, *ACTIVATIONS)


class Accumulator(Protocol):
    """A summary of a stream of batches."""

    def update(self, batch: Any) -> None:
        """Take in a batch; nothing of it if it is refused with an error."""

    def merge(self, other: Self) -> None:
        """Take in what another stream has left, as if it had come after this one."""

    def state(self) -> dict[str, Tensor]:
        """Everything kept, as tensors; `from_state` reads it back."""

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """What `state` returned, as an accumulator again."""


class LayerValues(NamedTuple):
    """Activations of one layer at the real tokens of a batch, (tokens, neurons)."""

    layer: int
    values: Tensor


class OfActivations:
    """Tokens seen, layer by layer, of an accumulator that reads activations."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = torch.Size(shape)
        self.seen = torch.zeros(self.shape[0], dtype=torch.long)

    @property
    def tokens(self) -> int:
        """Tokens taken in. Raises ValueError if there are none."""
        if not int(self.seen[0]):
            raise ValueError("no tokens to take activations from: the corpus is empty")
        return int(self.seen[0])


class ActiveCounts(OfActivations):
    """On how many tokens each neuron exceeds a threshold: LAPE's input (Tang et al., 2024).

    Parameters
    ----------
    shape : (layers, neurons).
    threshold : one number (0 for LAPE), or (layers, neurons).

    Attributes
    ----------
    over : int64 (layers, neurons).

    Raises ValueError for a threshold of another shape.
    """

    def __init__(self, shape: Sequence[int], threshold: float | Tensor = 0.0) -> None:
        super().__init__(shape)
        if isinstance(threshold, Tensor) and threshold.ndim and threshold.shape != self.shape:
            raise ValueError(
                f"threshold has shape {tuple(threshold.shape)}: expected (layers, neurons) "
                f"{tuple(self.shape)}"
            )
        self.threshold = torch.as_tensor(threshold)
        self.over = torch.zeros(self.shape, dtype=torch.long)

    def update(self, batch: LayerValues) -> None:
        """Take in one layer's activations of a batch."""
        layer, values = batch
        bar = self.threshold[layer] if self.threshold.ndim else self.threshold
        # Sums of int64, the default, take twice as long.
        self.over[layer] += (values > bar.to(values.device)).sum(0, dtype=torch.int32).cpu()
        self.seen[layer] += len(values)

    def merge(self, other: ActiveCounts) -> None:
        """Add the other's counts. Raises ValueError if they were taken with another threshold."""
        if not torch.equal(self.threshold, other.threshold):
            raise ValueError("cannot merge counts that were taken with another threshold")
        self.over, self.seen = self.over + other.over, self.seen + other.seen

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        return {"over": self.over, "seen": self.seen, "threshold": self.threshold}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ActiveCounts:
        """Counts as `state` returned them."""
        found = cls(state["over"].shape, state["threshold"])
        found.over, found.seen = state["over"].clone(), state["seen"].clone()
        return found


class ActivationMeans(OfActivations):
    """What each neuron puts out on average, over tokens; `shape` is (layers, neurons)."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self._sum = torch.zeros(self.shape, dtype=torch.float64)

    def update(self, batch: LayerValues) -> None:
        """Take in one layer's activations of a batch."""
        layer, values = batch
        self._sum[layer] += values.float().sum(dim=0).double().cpu()
        self.seen[layer] += len(values)

    def merge(self, other: ActivationMeans) -> None:
        """Add the other's sums."""
        self._sum, self.seen = self._sum + other._sum, self.seen + other.seen

    def mean(self) -> Tensor:
        """The means, float64 (layers, neurons)."""
        return self._sum / self.tokens

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        return {"sum": self._sum, "seen": self.seen}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> ActivationMeans:
        """Means as `state` returned them."""
        found = cls(state["sum"].shape)
        found._sum, found.seen = state["sum"].clone(), state["seen"].clone()
        return found


class Reservoir:
    """A uniform sample of the rows of a stream, without knowing how long it will be.

    Two reservoirs merge into one of both streams: how many rows each gives is drawn as it would be
    in a draw from all, and which of its rows at random. As long as there are no more rows than
    `capacity` all are kept, in order.

    Parameters
    ----------
    capacity : rows kept at most.
    seed : of the draws; they depend on it and on the numbers of rows alone.

    Raises ValueError for a capacity below 1.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: expected at least 1 row")
        self.capacity, self.seed = capacity, seed
        self.count = 0
        self._rows: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """The rows kept, (at most capacity, ...). Raises ValueError if there are none."""
        if self._rows is None:
            raise ValueError("the sample is empty: the stream has had no rows")
        return self._rows

    def update(self, batch: Tensor) -> None:
        """Take in rows (n, ...)."""
        self._take(batch.detach(), len(batch))

    def merge(self, other: Reservoir) -> None:
        """Take in the sample of another stream."""
        if other._rows is not None:
            self._take(other._rows, other.count)

    def _take(self, rows: Tensor, count: int) -> None:
        """Take in `rows`, a uniform sample of `count`."""
        if not count:
            return
        own = self._rows
        if own is None and count <= self.capacity:
            self._rows = rows.cpu().clone()
        elif self.count + count <= self.capacity:
            self._rows = torch.cat([self.rows, rows.cpu()])
        else:
            rng = np.random.default_rng([self.seed, self.count, count])
            kept = int(rng.hypergeometric(self.count, count, self.capacity)) if self.count else 0
            new = rng.permutation(len(rows))[: self.capacity - kept]
            chosen = rows[torch.from_numpy(np.sort(new)).to(rows.device)].cpu()
            if own is None:
                self._rows = chosen
            else:
                old = np.sort(rng.permutation(len(own))[:kept])
                self._rows = torch.cat([own[torch.from_numpy(old)], chosen])
        self.count += count

    def quantiles(self, q: Sequence[float]) -> Tensor:
        """Quantiles of each entry over the rows, float64 (len(q), ...), by linear interpolation.

        Of n rows kept, a quantile's rank is off by sqrt(q (1 - q) / n) of the stream, typically:
        with 1,000 rows a percentage point at the ninth decile. Raises ValueError outside 0 to 1.
        """
        if wrong := [one for one in q if not 0 <= one <= 1]:
            raise ValueError(f"quantile is {wrong[0]}: expected 0 to 1")
        return self.rows.double().quantile(torch.tensor(list(q), dtype=torch.float64), dim=0)

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        numbers = torch.tensor([self.capacity, self.seed, self.count])
        return {"numbers": numbers} | ({} if self._rows is None else {"rows": self._rows})

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Reservoir:
        """A sample as `state` returned it."""
        capacity, seed, count = state["numbers"].tolist()
        found = cls(capacity, seed)
        found.count, found._rows = count, state.get("rows")
        return found


class TokenSample(OfActivations):
    """Every neuron's activations at a uniform sample of tokens, the same for all neurons.

    True quantiles of the whole stream come from it (`quantiles`); `shape` is (layers, neurons),
    `capacity` and `seed` are `Reservoir`'s.
    """

    def __init__(self, shape: Sequence[int], capacity: int = 1000, seed: int = 0) -> None:
        super().__init__(shape)
        # The draws depend on the seed and on numbers of rows, so layers keep the same tokens.
        self._layers = [Reservoir(capacity, seed) for _ in range(self.shape[0])]

    def update(self, batch: LayerValues) -> None:
        """Take in one layer's activations of a batch."""
        self._layers[batch.layer].update(batch.values)
        self.seen[batch.layer] += len(batch.values)

    def merge(self, other: TokenSample) -> None:
        """Take in the sample of another stream."""
        merged = []
        for own, theirs in zip(self._layers, other._layers, strict=True):
            both = Reservoir.from_state(own.state())  # what was there before stays as it is
            both.merge(theirs)
            merged.append(both)
        self._layers, self.seen = merged, self.seen + other.seen

    def quantiles(self, q: Sequence[float]) -> Tensor:
        """`Reservoir.quantiles` of each neuron's activation, float64 (len(q), layers, neurons)."""
        return torch.stack([layer.quantiles(q) for layer in self._layers], dim=1)

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        parts = {"shape": torch.tensor(self.shape), "seen": self.seen}
        for i, layer in enumerate(self._layers):
            parts |= {f"{i}/{name}": tensor for name, tensor in layer.state().items()}
        return parts

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> TokenSample:
        """A sample as `state` returned it."""
        found = cls(state["shape"].tolist())
        found.seen = state["seen"].clone()
        found._layers = [
            Reservoir.from_state(
                {n.partition("/")[2]: t for n, t in state.items() if n.startswith(f"{i}/")}
            )
            for i in range(found.shape[0])
        ]
        return found


#: name -> what a masked neuron can put out instead of zero, (layers, neurons), from the means and
#: a sample of its activations.
NEURON_VALUES: dict[str, Callable[[ActivationMeans, TokenSample], Tensor]] = {
    "mean": lambda means, sample: means.mean(),
    "p10": lambda means, sample: sample.quantiles([0.1])[0],
    "p90": lambda means, sample: sample.quantiles([0.9])[0],
}


# --- one pass -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """An accumulator and what it reads.

    Attributes
    ----------
    reads : one of `READS`.
    make : a new, empty accumulator.
    start, step : of relevance it reads samples start, start + step, ... of each batch.
    """

    reads: str
    make: Callable[[], Any]
    start: int = 0
    step: int = 1

    def __post_init__(self) -> None:
        if self.reads not in READS:
            raise ValueError(f"unknown reading {self.reads!r}: expected one of {READS}")


@contextmanager
def observing(
    model: PreTrainedModel,
    attention_mask: Tensor,
    visit: Mapping[str, Sequence[Callable[[LayerValues], None]]],
) -> Iterator[None]:
    """Call `visit[place]` with every layer's activations during forward passes inside the block.

    Places are `ACTIVATIONS`; padding (0 in `attention_mask`, (samples, tokens)) is left out.

    Raises ValueError, inside the block, for a value that is not finite (which layer and sample).
    """
    real = attention_mask.to(model.device).bool()
    first = first_column(real)

    def handed_over(place: str, layer: int, values: Tensor) -> None:
        values = values.detach()
        values = values[real] if first is None else values[:, first:].flatten(0, 1)
        # A sum with NaN or an infinite value in it is not finite; looking at each value is slow.
        if not bool(values.sum().isfinite()):
            _refuse_infinite(layer, values, real)
        for take in visit[place]:
            take(LayerValues(layer, values))

    def hook(place: str, layer: int) -> Callable[..., None]:
        return lambda module, args, *output: handed_over(place, layer, (*output, *args)[0])

    with ExitStack() as hooks:
        for layer, mlp in enumerate(mlp_sites(model)):
            if visit.get("pre_act"):
                hooks.callback(mlp.act_fn.register_forward_pre_hook(hook("pre_act", layer)).remove)
            if visit.get("act_fn"):
                hooks.callback(mlp.act_fn.register_forward_hook(hook("act_fn", layer)).remove)
            if visit.get("unit"):
                hooks.callback(mlp.down_proj.register_forward_pre_hook(hook("unit", layer)).remove)
        yield


def _refuse_infinite(layer: int, values: Tensor, real: Tensor) -> None:
    bad = (~values.isfinite()).any(-1)
    if bad.any():  # NaN > 0 is false: it would be counted as a neuron at rest
        sample = int(real.nonzero()[:, 0][bad.nonzero()[0, 0]])
        raise ValueError(
            f"an activation in layer {layer}, sample {sample} of the batch, is not finite; "
            "check the weights and that sample's text, and use bfloat16 or float32"
        )


def one_pass(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    readers: Mapping[str, Reader],
    objective: str = "next_token",
    *,
    rules: str = "attnlrp",
    opening: int = 0,
    **how: Any,
) -> dict[str, Any]:
    """What a batch has for every reader, from one forward and, for relevance, one backward pass.

    Parameters
    ----------
    input_ids, attention_mask : (samples, tokens); None if there is no padding.
    readers : name -> what reads.
    objective, rules, opening, how : as for `attribution.neuron_relevance`; activations, too, are
        read at tokens that are scored only.

    Returns
    -------
    name -> a new accumulator that has taken in the batch, where activations are read, and the
    relevance itself, (samples, layers, width), on the CPU, where relevance is. Raises what
    `neuron_relevance` and `observing` raise.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    found: dict[str, Any] = {
        name: reader.make() for name, reader in readers.items() if reader.reads in ACTIVATIONS
    }
    visit = {
        place: [found[n].update for n, reader in readers.items() if reader.reads == place]
        for place in ACTIVATIONS
    }
    points = [p for p in POINTS if any(reader.reads == p for reader in readers.values())]
    scored = scored_tokens(mask, opening)
    with ready(model, rules) if points else nullcontext(), observing(model, scored, visit):
        if points:
            how |= {"rules": rules, "opening": opening}
            relevance = relevance_at(model, input_ids, attention_mask, points, objective, **how)
        else:
            with torch.no_grad(), fast_linear():  # the head is not needed
                inputs = padded_inputs(input_ids.to(model.device), mask.to(model.device))
                model.base_model(**inputs)
    at = {point: relevance[point].cpu() for point in points}
    return found | {n: at[reader.reads] for n, reader in readers.items() if reader.reads in at}


def collect(
    model: PreTrainedModel,
    batches: Iterable[Tensor],
    readers: Mapping[str, Reader],
    objective: str = "next_token",
    **how: Any,
) -> dict[str, Any]:
    """Everything that `readers` keep of a language's texts, in one pass over them.

    Parameters
    ----------
    batches : token ids (samples, tokens), without padding, such as `windows(...).split(50)`.
    readers, objective, how : as for `one_pass`.

    Returns name -> accumulator. Raises ValueError if there is no batch, and what `one_pass` raises.
    """
    found: dict[str, Any] = {}
    for ids in batches:
        found = taken_in(found, one_pass(model, ids, None, readers, objective, **how), readers)
    if not found:
        raise ValueError("no texts to collect from: there is no batch")
    return found


def taken_in(
    before: Mapping[str, Any], batch: Mapping[str, Any], readers: Mapping[str, Reader]
) -> dict[str, Any]:
    """Accumulators after one more batch (`one_pass`); those before it stay as they are."""
    after = {}
    for name, reader in readers.items():
        kept = before.get(name)
        new = reader.make() if kept is None else type(kept).from_state(kept.state())
        if reader.reads in ACTIVATIONS:
            new.merge(batch[name])
        else:
            new.update(batch[name][reader.start :: reader.step])
        after[name] = new
    return after
