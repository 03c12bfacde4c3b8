"""What the unmasked testbed can do: parallel questions, tokens, relations, a copier, perplexity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import ROOT, Store
from crane_lab.study import gate, unmasked
from crane_lab.testbed import world

FOLDER = ROOT / "data" / "testbed"


def test_questions_that_say_the_same() -> None:
    worlds = {x: world.build(x) for x in ("en", "zh")}
    found = unmasked.parallel_questions(worlds)
    assert len(found["en"]) == len(found["zh"]) > 50
    assert found["en"] == unmasked.parallel_questions(worlds)["en"]
    fewer = dataclasses.replace(
        worlds["zh"], subjects={**worlds["zh"].subjects, "job": worlds["zh"].subjects["job"][1:]}
    )
    with pytest.raises(ValueError, match="not parallel"):
        unmasked.parallel_questions({"en": worlds["en"], "zh": fewer})


def test_tokens_needed_for_it() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "base")
    table = unmasked.tokens_needed(tokenizer, {"en": ["the of", "in"], "zh": ["首都", "首"]})
    assert table["language"].tolist() == ["English", "Chinese"]
    assert table["characters"].tolist() == [8, 3] and table["bytes"].tolist() == [8, 9]
    assert table["tokens relative to en"].tolist() == [1.0, table["tokens"][1] / table["tokens"][0]]


def items() -> pd.DataFrame:
    return pd.DataFrame(
        [
            (f"{kind}_{x}", x, relation, correct)
            for kind, relation, answers in (
                ("knowledge", "capital", (1, 0)),
                ("reading", "thing.1", (1, 1)),
                ("reading", "thing.2", (1, 0)),
            )
            for x in ("en", "zh")
            for correct in answers
        ],
        columns=["task", "language", "relation", "correct"],
    )


def test_accuracy_by_relation() -> None:
    table = unmasked.by_relation(items(), ["zh", "en"])
    assert table.columns.tolist() == ["kind", "asked", "items per language", "zh", "en"]
    assert table.values.tolist() == [
        ["knowledge", "capital", 2, 0.5, 0.5], ["reading", "thing.1", 2, 1.0, 1.0],
        ["reading", "thing.2", 2, 0.5, 0.5],
    ]  # fmt: skip


def test_what_a_copier_scores() -> None:
    scores = pd.DataFrame(
        [("knowledge_en", 0.9, 4, 0.8, 1.0), ("reading_en", 0.9, 4, 0.8, 1.0),
         ("reading_zh", 0.7, 4, 0.6, 0.74), ("reading_vi", 0.7, 4, 0.6, 0.8)],
        columns=["task", "accuracy", "n", "low", "high"],
    )  # fmt: skip
    found = pd.concat(
        [items(), items().query("language == 'en'").replace("_en$", "_vi", regex=True)]
    )
    table = unmasked.copier(found, scores).set_index("task")
    assert table.index.tolist() == ["reading_en", "reading_zh", "reading_vi"]
    assert (table["copier"] == 0.75).all()  # half of the items with one person, half with two
    assert table["verdict"].tolist() == ["above", "below", "not told apart"]


@pytest.mark.filterwarnings("ignore:One or more sample arguments")
def test_perplexity_has_an_interval_over_windows() -> None:
    losses = {"zh": torch.tensor([1.0]), "en": torch.tensor([1.0, 2.0])}
    table = unmasked.perplexity_by_language(losses, ["en", "zh"]).set_index("language")
    assert table.loc["en", "perplexity"] == pytest.approx(np.exp(1.5))
    half = np.log(table["high"].loc["en"]) - 1.5
    assert half == pytest.approx(12.706 * 0.5, rel=1e-3)  # t with one degree of freedom
    assert np.isnan(table["low"].loc["zh"]) and table["windows"].loc["zh"] == 1


def test_first_masks_leave_no_trace(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(
        model=str(FOLDER / "base"),
        perplexity_corpus=str(FOLDER / "corpus" / "perplexity"),
        window=12,
        n_perplexity=2,
    )
    pipeline = Pipeline(settings, Store(tmp_path_factory.mktemp("store")))
    table = unmasked.first_masks(pipeline)
    assert table["share"].tolist() == [0.0, *gate.FRACTIONS]
    assert table["n_neurons"][0] == 0 and table["change"][0] == 0 and table["restored"].all()
    assert table["n_neurons"].is_monotonic_increasing and (table["change"][1:] > 0).all()
