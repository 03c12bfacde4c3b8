"""Answers to be graded, as the pipeline gives them to a judge."""

from __future__ import annotations

import pandas as pd


def make_answers(n: int, texts: list[str] | None = None) -> pd.DataFrame:
    texts = texts or [f"Answer number {number}." for number in range(n)]
    return pd.DataFrame(
        {
            "language": ["en", "zh", "vi", "en"] * (n // 4) + ["en"] * (n % 4),
            "id": range(n),
            "question": ["What is this?"] * n,
            "text": texts,
            "mask": ["none"] * n,
        },
        index=[f"row {number}" for number in range(n)],
    )
