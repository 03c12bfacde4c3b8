"""Answers to open questions under an intervention (§4.4)."""

from __future__ import annotations

import pandas as pd

from crane_core.interventions import Intervention
from crane_lab.engines.decoding import Prompts
from crane_lab.engines.generation import HuggingFaceEngine
from crane_lab.engines.vllm_engine import VLLMEngine


def said(
    engine: HuggingFaceEngine | VLLMEngine,
    asked: pd.DataFrame,
    prompts: Prompts,
    intervention: Intervention,
) -> pd.DataFrame:
    """`asked` with `text`, `finish` ("stop", or "length" for what was cut off) and `n_tokens`."""
    answers = engine.generate(prompts, intervention)
    return asked.assign(
        text=[answer.text for answer in answers],
        finish=[answer.finish for answer in answers],
        n_tokens=[len(answer.tokens) for answer in answers],
    )
