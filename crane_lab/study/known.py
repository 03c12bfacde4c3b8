"""How well a model knows languages: what it needs for the same paragraphs in each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from crane_lab.engines.prompting import opened
from crane_lab.pipeline import Pipeline
from crane_lab.study.steering import answer_losses
from crane_lab.texts.held_out import held_out_paragraphs, translations

FILE = "known.csv"
#: Paragraphs that are read in every language.
PARAGRAPHS = 40


def same_paragraphs(
    languages: Sequence[str], texts: str = "data/texts", n: int = PARAGRAPHS
) -> dict[str, list[str]]:
    """`n` paragraphs by language, translations of each other.

    Raises ValueError if the texts have fewer in common.
    """
    return translations(held_out_paragraphs(texts, languages), n, languages[0])


def known_languages(
    pipeline: Pipeline, languages: Sequence[str], texts: str = "data/texts", n: int = PARAGRAPHS
) -> pd.DataFrame:
    """One row per language: `nats` per paragraph, `tokens` in each, mean over `n` translations.

    Tokens of languages hold more or less, so that a loss per token says little; paragraphs that are
    translations of each other hold the same. The fewer nats, the better the language is known.

    Raises ValueError as `same_paragraphs` does.
    """
    rows = []
    for x, own in same_paragraphs(languages, texts, n).items():
        tokens = np.array([len(ids) - 1 for ids in opened(pipeline.tokenizer, own)])
        nats = np.array(answer_losses(pipeline, own)) * tokens
        rows.append({"language": x, "nats": nats.mean(), "tokens": tokens.mean()})
    return pd.DataFrame(rows).round(6)
