"""What an intervention does to multiple-choice items, and to what is said instead (§3.4, §4.3)."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core.interventions import Intervention, intervened
from crane_lab.engines.answers import answer_instead
from crane_lab.engines.multiple_choice import Prepared, evaluate

Note = Callable[[str], object]


def items(
    model: PreTrainedModel, prepared: Prepared, intervention: Intervention, note: Note
) -> pd.DataFrame:
    """Every item's outcome under an intervention; columns of `evaluate`."""
    with intervened(model, intervention):
        return evaluate(model, prepared, note=note)


def said_instead(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    intervention: Intervention,
    n_items: int,
    max_new_tokens: int,
) -> pd.DataFrame:
    """What the model goes on to say after items' prompts; see `answer_instead`."""
    with intervened(model, intervention):
        return answer_instead(model, tokenizer, prepared, n_items, max_new_tokens)
