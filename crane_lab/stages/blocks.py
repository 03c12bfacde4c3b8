"""Moments block by block, for whoever compares parts of the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from crane_core.moments import StreamingMoments


class BlockMoments:
    """Moments of every batch of a stream on its own, in order; `shape` is (layers, neurons)."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.moments: list[StreamingMoments] = []

    def update(self, batch: Tensor) -> None:
        """Take in a batch (samples, layers, neurons) as one block."""
        block = StreamingMoments(self.shape)
        block.update(batch)
        self.moments = [*self.moments, block]

    def merge(self, other: BlockMoments) -> None:
        """Append the other's blocks."""
        self.moments = [*self.moments, *other.moments]

    def state(self) -> dict[str, Tensor]:
        """Everything collected, as tensors to store; `from_state` reads it back."""
        states = [block.state() for block in self.moments]
        parts = (
            {name: torch.stack([s[name] for s in states]) for name in states[0]} if states else {}
        )
        return {"shape": torch.tensor(self.shape), **parts}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> BlockMoments:
        """Blocks as `state` returned them."""
        found = cls(state["shape"].tolist())
        found.moments = [
            StreamingMoments.from_state({n: t[i] for n, t in state.items() if n != "shape"})
            for i in range(len(state.get("count", ())))
        ]
        return found
