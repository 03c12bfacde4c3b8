"""Kurtosis of a stream of relevance values, in one pass (paper Eq. 2).

Nothing but five numbers per neuron is kept, whatever the number of samples. Batches are combined
with the pairwise formulas of Chan et al. (1983) and Pébay (2008) for central moments.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# The kurtosis of 2 samples is always 1 and that of 3 always 1.5, whatever their values.
MIN_SAMPLES = 4
# Below this the standard error of a normal's kurtosis, about sqrt(24 / n), exceeds 1.
FEW_SAMPLES = 24
_PARTS = ("shift", "mean", "m2", "m3", "m4")


class StreamingMoments:
    """Central moments up to the fourth of each entry of a stream of samples.

    Values are held relative to the first sample seen, so that a mean that is large beside the
    spread costs no digits and an entry that never changes keeps a spread of exactly zero.

    Parameters
    ----------
    shape : shape of one sample, such as (layers, neurons).

    Attributes
    ----------
    shape : as given.
    count : samples seen so far.
    """

    def __init__(self, shape: Sequence[int]):
        self.shape = torch.Size(shape)
        self.count = 0
        self._shift, self._mean, self._m2, self._m3, self._m4 = (
            torch.zeros(self.shape, dtype=torch.float64) for _ in _PARTS
        )

    def update(self, x: Tensor) -> None:
        """Take in a batch of samples `(samples, *shape)`, of any floating type and device.

        Raises
        ------
        TypeError : x is no floating tensor.
        ValueError : x has another shape, or holds NaN or infinite values (the message names
            the sample and the entry); the moments are then as before the call.
        """
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"update expects a floating tensor (samples, *shape), not {found}")
        if x.ndim == 0 or x.shape[1:] != self.shape:
            raise ValueError(
                f"update expects samples of shape {tuple(self.shape)} in a tensor "
                f"(samples, *shape), not a tensor {tuple(x.shape)}"
            )
        if len(x) == 0:
            return
        x = x.detach().to("cpu", torch.float64)
        if not x.isfinite().all():
            sample, *entry = (~x.isfinite()).nonzero()[0].tolist()
            raise ValueError(
                f"relevance of sample {self.count + sample} is {x[sample, *entry].item()} at "
                f"{self._name(entry)}: moments need finite values"
            )
        batch = StreamingMoments(self.shape)
        batch.count = len(x)
        batch._shift = (self._shift if self.count else x[0]).clone()
        centred = x - batch._shift
        batch._mean = centred.mean(dim=0)
        centred -= batch._mean
        power = centred.square()
        batch._m2 = power.sum(dim=0)
        batch._m4 = power.square().sum(dim=0)
        batch._m3 = power.mul_(centred).sum(dim=0)
        self.merge(batch)

    def merge(self, other: StreamingMoments) -> None:
        """Take in what another stream of samples of the same shape has collected.

        The order of merging does not matter beyond rounding. Raises ValueError for another shape.
        """
        if other.shape != self.shape:
            raise ValueError(
                f"cannot merge moments of shape {tuple(other.shape)} into {tuple(self.shape)}"
            )
        if other.count == 0:
            return
        a, b = self.count, other.count
        n = a + b
        if a == 0:
            self._shift = other._shift.clone()
        delta = (other._shift - self._shift) + (other._mean - self._mean)
        step = delta / n
        cross = delta * step * a * b
        m4 = (
            self._m4
            + other._m4
            + cross * step * step * (a * a - a * b + b * b)
            + 6 * step * step * (a * a * other._m2 + b * b * self._m2)
            + 4 * step * (a * other._m3 - b * self._m3)
        )
        m3 = (
            self._m3
            + other._m3
            + cross * step * (a - b)
            + 3 * step * (a * other._m2 - b * self._m2)
        )
        self._m2, self._m3, self._m4 = self._m2 + other._m2 + cross, m3, m4
        self._mean = self._mean + step * b
        self.count = n

    def mean(self) -> Tensor:
        """Mean of each entry, float64 of the given shape, in the unit of the samples."""
        self._require(1, "a mean")
        return self._shift + self._mean

    def variance(self) -> Tensor:
        """Population variance of each entry (divided by n), float64 of the given shape."""
        self._require(1, "a variance")
        return self._m2 / self.count

    @property
    def constant(self) -> Tensor:
        """Where an entry never changed, bool of the given shape.

        A spread below the resolution of float64 at the entry's mean is rounding and counts as
        constant, as it does for `scipy.stats.kurtosis`.
        """
        resolution = torch.finfo(torch.float64).resolution
        return self.variance() <= (resolution * self.mean()).square()

    @property
    def n_constant(self) -> int:
        """How many entries never changed; their kurtosis is NaN."""
        return int(self.constant.sum())

    def kurtosis(self) -> Tensor:
        """Population kurtosis of each entry (Eq. 2), float64 of the given shape; a normal has 3.

        No fewer than 1, and with n samples never more than n - 2 + 1 / (n - 1). NaN where the
        entry is constant (see `constant`, `n_constant`). Warns below `FEW_SAMPLES` samples.

        Raises ValueError with fewer than `MIN_SAMPLES` samples, for which it says nothing about
        the data, or if the values are too large for their fourth powers.
        """
        self._require(MIN_SAMPLES, "a kurtosis that depends on the data")
        if self.count < FEW_SAMPLES:
            warnings.warn(
                f"kurtosis of {self.count} samples: with fewer than {FEW_SAMPLES} its standard "
                f"error is above 1 even for normal data",
                stacklevel=2,
            )
        constant = self.constant
        # Dividing twice keeps the square of a small spread from vanishing.
        kurtosis = self.count * (self._m4 / self._m2 / self._m2)
        if not (kurtosis.isfinite() | constant).all():
            entry = (~(kurtosis.isfinite() | constant)).nonzero()[0].tolist()
            raise ValueError(
                f"the values at {self._name(entry)} are too large or too small for their fourth "
                f"powers in float64: rescale the relevance"
            )
        return kurtosis.masked_fill(constant, torch.nan)

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        parts = {part: getattr(self, f"_{part}").clone() for part in _PARTS}
        return {"count": torch.tensor(self.count), **parts}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> StreamingMoments:
        """Moments as `state` returned them. Raises ValueError if a part is missing."""
        if missing := [part for part in ("count", *_PARTS) if part not in state]:
            raise ValueError(f"stored moments lack {missing}: expected what state() returns")
        moments = cls(state["shift"].shape)
        moments.count = int(state["count"])
        for part in _PARTS:
            setattr(moments, f"_{part}", state[part].to(torch.float64).clone())
        return moments

    def _require(self, least: int, what: str) -> None:
        if self.count < least:
            raise ValueError(f"{what} needs at least {least} samples, got {self.count}")

    def _name(self, entry: Sequence[int]) -> str:
        """An entry in words; two dimensions are layers and neurons everywhere in this project."""
        if len(self.shape) == 2:
            return f"layer {entry[0]}, neuron {entry[1]}"
        return f"entry {tuple(entry)}"
