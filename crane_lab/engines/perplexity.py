"""Held-out perplexity: a read-out more sensitive than accuracy, and never clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from crane_core import families
from crane_core.kernels import inference
from crane_lab.engines.vocabulary import in_one, in_pieces, summed_up
from crane_lab.memory import Memory

#: Positions that are multiplied with the output embedding at one time.
_LOGIT_ROWS = 1024


class Perplexity(NamedTuple):
    """Mean next-token loss in nats, its exponential, and the mean loss of each window."""

    loss: float
    perplexity: float
    losses: Tensor


@inference()
def perplexity(
    model: PreTrainedModel,
    windows: Tensor,
    batch_size: int = 16,
    note: Callable[[str], object] = lambda text: None,
) -> Perplexity:
    """Perplexity of token windows, int64 `(n, t)`, under `model` as it is now.

    `losses` is float32 `(n,)` on the CPU: the mean of a window's t - 1 next-token losses, so that
    intervals over texts can be had. Windows are equally long, so `loss` is their plain mean.
    Logits are summed up in float32 and in pieces, so that those of all tokens of the vocabulary
    never exist at once; what does not fit is run in smaller batches, of which `note` is told.

    Raises ValueError if `windows` is not `(n, t)` with n >= 1 and t >= 2, holds ids outside the
    vocabulary, or if a loss is not finite (which window).
    """
    if windows.dim() != 2 or windows.shape[0] < 1 or windows.shape[1] < 2:
        raise ValueError(
            f"expected token windows (n >= 1, t >= 2), got shape {tuple(windows.shape)}"
        )
    vocabulary = model.config.get_text_config().vocab_size
    if int(windows.min()) < 0 or int(windows.max()) >= vocabulary:
        raise ValueError(
            f"token ids from {int(windows.min())} to {int(windows.max())} in windows, but the "
            f"model's vocabulary has {vocabulary}; were they made with another tokenizer?"
        )
    memory = Memory()
    losses = torch.cat(
        [
            part
            for batch in windows.split(batch_size)
            for part in memory.run(
                lambda ids: _losses(model, ids.to(model.device)).mean(1).cpu(), batch, note
            )
        ]
    )
    broken = (~losses.isfinite()).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(losses)} windows have a loss that is not finite, first window "
            f"{broken[0]}; check the model's weights"
        )
    loss = losses.double().mean()
    return Perplexity(loss.item(), loss.exp().item(), losses)


def _losses(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Next-token losses `(n, t - 1)` of `ids` `(n, t)`, float32."""
    targets = ids[:, 1:]
    if not families.linear_head(model):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(
            targets
        )
    hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    head = model.get_output_embeddings()
    pieces = zip(
        hidden.flatten(0, 1).split(_LOGIT_ROWS), targets.flatten().split(_LOGIT_ROWS), strict=True
    )
    return torch.cat([_head_losses(head, *piece) for piece in pieces]).view_as(targets)


def _head_losses(head: nn.Linear, states: Tensor, targets: Tensor) -> Tensor:
    """Losses of `targets` `(n,)` by the logits that `head` makes of `states` `(n, hidden)`."""
    if in_one(head, states):
        return F.cross_entropy(head(states).float(), targets, reduction="none")
    total = right = states.new_full((len(states),), -torch.inf, dtype=torch.float32)
    for first, logits in in_pieces(head, states):
        place = targets - first
        near = place.clamp(0, logits.shape[1] - 1)
        right = torch.where(place == near, logits.gather(1, near[:, None])[:, 0], right)
        total = summed_up(total, logits, near)
    return total - right
