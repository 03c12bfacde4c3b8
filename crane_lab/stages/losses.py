"""What an intervention does to held-out text (§3.4): its losses, and whether it is at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from crane_core.interventions import Intervention, intervened
from crane_lab.engines.perplexity import perplexity

Note = Callable[[str], object]


@torch.no_grad()
def logit_change(
    model: PreTrainedModel, windows: Sequence[Tensor], intervention: Intervention
) -> float:
    """Largest absolute change of any logit by an intervention, on the first of each `windows`.

    Raises RuntimeError if one that touches neurons changes nothing: it is not at work.
    """
    changes = []
    for own in windows:  # one at a time: logits of a large vocabulary fill the memory
        ids = own[:1].to(model.device)
        before = model(input_ids=ids, use_cache=False).logits
        with intervened(model, intervention):
            after = model(input_ids=ids, use_cache=False).logits
        changes.append((after - before).abs().max())
    change = float(torch.stack(changes).max())
    if len(intervention) and change == 0:
        raise RuntimeError(
            f"an intervention on {len(intervention)} neurons changed no logit: the mask is not at "
            "work"
        )
    return change


def held_out_losses(
    model: PreTrainedModel, windows: Mapping[str, Tensor], intervention: Intervention, note: Note
) -> dict[str, Tensor]:
    """Mean next-token loss of each window under an intervention: `{language: (windows,)}`."""
    with intervened(model, intervention):
        return {x: perplexity(model, own, note=note).losses for x, own in windows.items()}
