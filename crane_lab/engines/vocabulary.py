"""Logits of a large vocabulary, a piece at a time.

To write the logits of a quarter of a million tokens to memory and read them again takes longer than
to sum them up while they are in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Logits that exist at one time: 16 MB in float32, which a processor's cache holds.
AT_ONCE = 2**22


def in_one(head: nn.Module, states: Tensor) -> bool:
    """Whether the logits of all tokens, for states (n, hidden), are few enough for one piece."""
    return AT_ONCE // len(states) >= len(head.get_parameter("weight"))


def in_pieces(head: nn.Module, states: Tensor) -> Iterator[tuple[int, Tensor]]:
    """What an output embedding makes of states (n, hidden), piece by piece of its vocabulary.

    Yields the number of the piece's first token, and the logits (n, tokens), float32.
    """
    weight, bias = head.get_parameter("weight"), getattr(head, "bias", None)
    columns = max(AT_ONCE // len(states), 1)
    for first in range(0, len(weight), columns):
        piece = slice(first, first + columns)
        own = None if bias is None else bias[piece]
        yield first, F.linear(states, weight[piece], own).float()


def summed_up(total: Tensor, logits: Tensor, near: Tensor) -> Tensor:
    """Log of the sum of exponentials (n,), those of a further piece added.

    `near` is any token of the piece for each row. Of what sums up exponentials, cross-entropy is
    twice as fast as logsumexp.
    """
    own = logits.gather(1, near[:, None])[:, 0]
    return torch.logaddexp(total, F.cross_entropy(logits, near, reduction="none") + own)
