"""Answers to open questions under an intervention (§4.4)."""

from __future__ import annotations

import warnings

import pandas as pd

from crane_core.interventions import Intervention
from crane_lab.engines.decoding import Prompts
from crane_lab.engines.generation import Answer, HuggingFaceEngine
from crane_lab.engines.vllm_engine import VLLMEngine


def said(
    engine: HuggingFaceEngine | VLLMEngine,
    asked: pd.DataFrame,
    prompts: Prompts,
    intervention: Intervention,
) -> pd.DataFrame:
    """`asked` with `text`, `finish` (see `generation.Answer`) and `n_tokens`.

    Every task's prompts are answered on their own: which others there are changes nothing, in no
    type of number.

    Warns of answers that ended within the model's thoughts; ValueError if all of the model's
    without a mask did, so that there is nothing to judge.
    """
    answers: list[Answer] = [Answer("", (), "")] * len(asked)
    for rows in asked.groupby("task", sort=False).indices.values():
        found = engine.generate([prompts[row] for row in rows], intervention)
        for row, answer in zip(rows, found, strict=True):
            answers[row] = answer
    if thinking := sum(answer.finish == "thinking" for answer in answers):
        text = (
            f"{thinking} of {len(answers)} answers ended within the model's thoughts, which are "
            f"not judged, after at most {engine.decoding.max_new_tokens} tokens; raise "
            "max_new_tokens, or take a model that answers without thinking"
        )
        if thinking == len(answers) and not intervention.steps:
            raise ValueError(text)
        warnings.warn(text, stacklevel=2)
    return asked.assign(
        text=[answer.text for answer in answers],
        finish=[answer.finish for answer in answers],
        n_tokens=[len(answer.tokens) for answer in answers],
    )
