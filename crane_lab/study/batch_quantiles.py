"""Quantiles of activations as the code of Act Prob 90p streams them, for that criterion alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from crane_core.accumulators import LayerValues, OfActivations


class BatchQuantiles(OfActivations):
    """A quantile of each neuron's activation as Act Prob 90p's code streams it.

    In each batch the value at the quantile's place is taken, and these are averaged over batches in
    proportion to their tokens. The result depends somewhat on what shares a batch; `Reservoir` has
    quantiles of the stream itself.

    Raises ValueError for a quantile outside (0, 1].
    """

    def __init__(self, shape: Sequence[int], quantile: float = 0.9) -> None:
        super().__init__(shape)
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile is {quantile}: expected a number above 0 and at most 1")
        self.quantile = quantile
        self._sum = torch.zeros(self.shape, dtype=torch.float64)

    def update(self, batch: LayerValues) -> None:
        """Take in one layer's activations of a batch."""
        layer, values = batch
        n = len(values)
        if not n:
            return
        found = values.float().kthvalue(math.ceil(n * self.quantile), dim=0).values
        self._sum[layer] += n * found.double().cpu()
        self.seen[layer] += n

    def merge(self, other: BatchQuantiles) -> None:
        """Add the other's sums."""
        self._sum, self.seen = self._sum + other._sum, self.seen + other.seen

    def values(self) -> Tensor:
        """The averaged quantiles, float64 (layers, neurons)."""
        return self._sum / self.tokens

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        quantile = torch.tensor(self.quantile, dtype=torch.float64)
        return {"sum": self._sum, "seen": self.seen, "quantile": quantile}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> BatchQuantiles:
        """Quantiles as `state` returned them."""
        found = cls(state["sum"].shape, float(state["quantile"]))
        found._sum, found.seen = state["sum"].clone(), state["seen"].clone()
        return found
