"""Statistics of relevance other than kurtosis, on the very same streams (§3.3).

The paper calls kurtosis one possible measure of how concentrated a neuron's relevance is. Here are
others. `Collected` takes in what all of them need in one pass over the texts, `compute` gives one.
Six need a few running sums per neuron. Two (`l_kurtosis`, `gini`) need values in order, so a
uniform random sample of the texts is kept for them: `capacity` x layers x neurons numbers, 8 MB on
the testbed with 1,000 texts and 1.4 GB on Llama-2-7B. As long as there are no more texts than that
the sample is all of them and the result exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from crane_core.accumulators import Reservoir
from crane_core.moments import MIN_SAMPLES, StreamingMoments
from crane_core.selection import contrast_of, normalise


class Collected:
    """What the statistics need of a stream of relevance, one neuron at a time, in one pass.

    Parameters
    ----------
    shape : (layers, neurons).
    capacity : how many samples are kept whole, for the statistics that sort; 0 for none.
    seed : of the draw that decides which are kept once there are more than `capacity`.

    Attributes
    ----------
    moments : central moments (`StreamingMoments`), for kurtosis, variance and the mean.
    sum_abs, sum_square, sum_fourth : sums of `|r|`, `r^2` and `r^4` over samples, float64.
    """

    def __init__(self, shape: Iterable[int], capacity: int = 1000, seed: int = 0) -> None:
        if capacity and capacity < MIN_SAMPLES:
            raise ValueError(f"capacity is {capacity}: expected at least {MIN_SAMPLES} samples")
        self.moments = StreamingMoments(tuple(shape))
        self.sum_abs, self.sum_square, self.sum_fourth = (
            torch.zeros(self.moments.shape, dtype=torch.float64) for _ in range(3)
        )
        self._sample = Reservoir(capacity, seed) if capacity else None

    @property
    def count(self) -> int:
        """Samples seen so far."""
        return self.moments.count

    @property
    def sample(self) -> Tensor:
        """The samples kept, (at most capacity, layers, neurons).

        Raises ValueError if none were to be kept, or there have been none.
        """
        if self._sample is None:
            raise ValueError("this statistic sorts samples, and none were kept: give a capacity")
        return self._sample.rows

    def update(self, batch: Tensor) -> None:
        """Take in a batch (samples, layers, neurons).

        Raises TypeError or ValueError as `StreamingMoments.update` does (a value that is NaN or
        infinite, another shape), and then takes in nothing.
        """
        self.moments.update(batch)
        batch = batch.detach().cpu()
        size = batch.double().abs()
        power = size.square()
        for name, values in zip(_SUMS, (size, power, power.square()), strict=True):
            setattr(self, name, getattr(self, name) + values.sum(dim=0))
        if self._sample is not None:
            self._sample.update(batch)

    def merge(self, other: Collected) -> None:
        """Take in what another stream of the same shape has collected."""
        self.moments.merge(other.moments)
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if self._sample is not None and other._sample is not None:
            self._sample.merge(other._sample)

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        parts = {f"moments/{name}": tensor for name, tensor in self.moments.state().items()}
        if self._sample is not None:
            parts |= {f"sample/{name}": tensor for name, tensor in self._sample.state().items()}
        return parts | {name: getattr(self, name) for name in _SUMS}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Collected:
        """What `state` returned, collected again."""

        def part(of: str) -> dict[str, Tensor]:
            return {n.partition("/")[2]: t for n, t in state.items() if n.startswith(f"{of}/")}

        found = cls(state["sum_abs"].shape, 0)
        found.moments = StreamingMoments.from_state(part("moments"))
        for name in _SUMS:
            setattr(found, name, state[name])
        if sample := part("sample"):
            found._sample = Reservoir.from_state(sample)
        return found


_SUMS = ("sum_abs", "sum_square", "sum_fourth")


# --- the statistics: Collected -> (layers, neurons), float64, NaN where undefined -----------------


def _l_kurtosis(c: Collected) -> Tensor:
    x = c.sample.double().sort(dim=0).values
    n = len(x)
    i = torch.arange(n, dtype=torch.float64)
    # Probability-weighted moments (Hosking, 1990): b_r averages x_(i) C(i, r) / C(n - 1, r).
    weight, b = torch.ones(n, dtype=torch.float64), []
    for r in range(4):
        b.append(torch.tensordot(weight, x, dims=1) / n)
        weight = weight * (i - r) / (n - 1 - r)
    second = 2 * b[1] - b[0]
    fourth = 20 * b[3] - 30 * b[2] + 12 * b[1] - b[0]
    return (fourth / second).masked_fill(x[0] == x[-1], torch.nan)


def _gini(c: Collected) -> Tensor:
    x = c.sample.double().abs().sort(dim=0).values
    n = len(x)
    rank = 2 * torch.arange(1, n + 1, dtype=torch.float64) - n - 1
    return torch.tensordot(rank, x, dims=1) / (n * x.sum(dim=0))  # 0 / 0, all zero: NaN


def _participation_ratio(c: Collected) -> Tensor:
    # Dividing twice keeps the square of a small sum from vanishing.
    return 1 / (c.sum_fourth / c.sum_square / c.sum_square) / c.count


def _hoyer(c: Collected) -> Tensor:
    root = c.count**0.5
    return (root - c.sum_abs / c.sum_square.sqrt()) / (root - 1)


@dataclass(frozen=True)
class Statistic:
    """One way to sum up a neuron's relevance over texts.

    Attributes
    ----------
    function : `Collected` -> (layers, neurons), float64; NaN where it is undefined.
    label : its name in a table or figure.
    about : what it is, in a line, with what becomes of degenerate streams.
    kind : "shape" if multiplying all relevance by a constant changes nothing, else "size".
    one_pass : whether running sums are enough; if not it works on the samples kept.
    sign : 1 if large values are what a selection looks for, -1 if small ones are.
    least : samples needed.
    """

    function: Callable[[Collected], Tensor]
    label: str
    about: str
    kind: str
    one_pass: bool = True
    sign: int = 1
    least: int = 2


#: name -> statistic, kurtosis first.
STATISTICS: dict[str, Statistic] = {
    "kurtosis": Statistic(
        lambda c: c.moments.kurtosis(),
        "kurtosis",
        "fourth central moment / squared variance (Eq. 2); NaN for a constant neuron",
        "shape",
        least=MIN_SAMPLES,
    ),
    "l_kurtosis": Statistic(
        _l_kurtosis,
        "L-kurtosis",
        "fourth L-moment / second: tails by sorted values instead of fourth powers, -1/4 to 1, "
        "normal 0.123; NaN for a constant neuron",
        "shape",
        one_pass=False,
        least=MIN_SAMPLES,
    ),
    "variance": Statistic(
        lambda c: c.moments.variance(),
        "variance",
        "mean squared distance from the mean; 0 for a constant",
        "size",
    ),
    "mean_abs": Statistic(
        lambda c: c.sum_abs / c.count,
        "mean |relevance|",
        "how much relevance, whatever its sign",
        "size",
        least=1,
    ),
    "signed_mean": Statistic(
        lambda c: c.moments.mean(),
        "signed mean",
        "how much relevance in favour of the output",
        "size",
        least=1,
    ),
    "gini": Statistic(
        _gini,
        "Gini of |relevance|",
        "inequality of |r| over texts: 0 if all are equal, towards 1 if one text has all; NaN if "
        "all are zero",
        "shape",
        one_pass=False,
    ),
    "participation_ratio": Statistic(
        _participation_ratio,
        "participation ratio",
        "(sum r^2)^2 / (n sum r^4), the share of texts that take part, 1/n to 1; *small* means "
        "concentrated; NaN if all are zero",
        "shape",
        sign=-1,
    ),
    "hoyer": Statistic(
        _hoyer,
        "Hoyer sparsity",
        "from the ratio of the sum of |r| to the root of the sum of r^2: 0 if all |r| are equal, "
        "1 if one text has all; NaN if all are zero",
        "shape",
    ),
}


#: Statistics that are an amount of relevance, of which each language can have a share.
AMOUNTS = ("mean_abs", "variance")


def compute(name: str, collected: Collected) -> Tensor:
    """The statistic `name`, one of `STATISTICS`, of every neuron: (layers, neurons), float64.

    In the unit that it has; NaN where it is undefined. Raises ValueError for an unknown name, and
    for fewer samples than the statistic needs.
    """
    if name not in STATISTICS:
        raise ValueError(f"unknown statistic {name!r}: expected one of {', '.join(STATISTICS)}")
    statistic = STATISTICS[name]
    if collected.count < statistic.least:
        raise ValueError(
            f"{statistic.label} needs at least {statistic.least} samples, got {collected.count}"
        )
    return statistic.function(collected)


def scores(
    values: Mapping[str, Tensor], name: str, target: str, contrast: bool, how: str = "zscore"
) -> Tensor:
    """What a selection for `target` ranks by, large first: (layers, neurons), float64.

    `values`: language -> the statistic `name` as `compute` gives it, put on a scale within each
    layer (`how`, of `selection.normalise`) so that large is wanted. With `contrast`, the target's
    less the largest other language's. NaN where the statistic is undefined.
    """
    if name not in STATISTICS:
        raise ValueError(f"unknown statistic {name!r}: expected one of {', '.join(STATISTICS)}")
    normalised = {x: normalise(STATISTICS[name].sign * value, how) for x, value in values.items()}
    return contrast_of(normalised, target) if contrast else normalised[target]
