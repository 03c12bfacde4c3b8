"""What a judge and the identifier of languages make of answers (§4.4)."""

from __future__ import annotations

import pandas as pd

from crane_lab.engines.judging import Judge
from crane_lab.texts.fidelity import fidelity


def graded(judge: Judge, answers: pd.DataFrame, languages: list[str]) -> pd.DataFrame:
    """`answers` with the judge's columns, `text_language` and `in_language`."""
    scored = judge.score(answers)
    spoken = fidelity(answers["text"].to_list(), answers["language"].to_list(), languages)
    return scored.assign(
        text_language=spoken["text_language"].to_numpy(),
        in_language=spoken["in_language"].to_numpy(),
    )
