"""What a judge and the identifier of languages make of answers (§4.4)."""

from __future__ import annotations

import warnings

import pandas as pd

from crane_lab.engines.judging import Judge
from crane_lab.texts.fidelity import fidelity, untold


def graded(judge: Judge, answers: pd.DataFrame, languages: list[str]) -> pd.DataFrame:
    """`answers` with the judge's columns, `text_language` and `in_language`.

    The last two are missing, and a warning says so, in languages that no answer can be told to be
    in: `fidelity`'s identifier does not know them.
    """
    if lacking := untold(languages):
        warnings.warn(
            f"answers are judged, but whether they are in {', '.join(lacking)} cannot be told: "
            "py3langid does not know it; their language is missing in all tables",
            stacklevel=2,
        )
    scored = judge.score(answers)
    spoken = fidelity(answers["text"].to_list(), answers["language"].to_list(), languages)
    return scored.assign(
        text_language=spoken["text_language"].array,
        in_language=spoken["in_language"].array,
    )
