"""What an intervention does to items, to held-out text and to what is said (§3.4, §4.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core.interventions import Intervention, intervened
from crane_lab.engines import evaluation

Note = Callable[[str], object]


@torch.no_grad()
def logit_change(
    model: PreTrainedModel, windows: Sequence[Tensor], intervention: Intervention
) -> float:
    """Largest absolute change of any logit by an intervention, on the first of each `windows`.

    Raises RuntimeError if one that touches neurons changes nothing: it is not at work.
    """
    ids = torch.cat([w[:1] for w in windows]).to(model.device)
    before = model(input_ids=ids, use_cache=False).logits
    with intervened(model, intervention):
        after = model(input_ids=ids, use_cache=False).logits
    change = float((after - before).abs().max())
    if len(intervention) and change == 0:
        raise RuntimeError(
            f"masking {len(intervention)} neurons changed no logit: the mask is not at work"
        )
    return change


def items(
    model: PreTrainedModel, prepared: evaluation.Prepared, intervention: Intervention, note: Note
) -> pd.DataFrame:
    """Every item's outcome under an intervention; columns of `evaluation.evaluate`."""
    with intervened(model, intervention):
        return evaluation.evaluate(model, prepared, note=note)


def losses(
    model: PreTrainedModel, windows: Mapping[str, Tensor], intervention: Intervention, note: Note
) -> dict[str, Tensor]:
    """Mean next-token loss of each window under an intervention: `{language: (windows,)}`."""
    with intervened(model, intervention):
        return {
            x: evaluation.perplexity(model, own, note=note).losses for x, own in windows.items()
        }


def said_instead(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: evaluation.Prepared,
    intervention: Intervention,
    n_items: int,
    max_new_tokens: int,
) -> pd.DataFrame:
    """What the model goes on to say after items' prompts; see `evaluation.answer_instead`."""
    with intervened(model, intervention):
        return evaluation.answer_instead(model, tokenizer, prepared, n_items, max_new_tokens)
