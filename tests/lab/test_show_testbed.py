"""Notebook 00's tables, figures and sentences, on made-up outcomes."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import make_tiny_llama
from scipy.stats import binomtest
from shown import frame_of
from transformers import AutoTokenizer

from crane_lab.show import testbed_pages as pages
from crane_lab.store import ROOT
from crane_lab.testbed import world

LANGUAGES = ("en", "zh", "vi")
TASKS = [f"{kind}_{x}" for kind in ("knowledge", "reading") for x in LANGUAGES]


def test_the_world_and_its_documents() -> None:
    worlds = {x: world.build(x) for x in ("en", "vi")}
    table = pages.world_table(worlds)
    first = frame_of(table).set_index("what").loc["person"]
    assert first["how many, en"] == len(worlds["en"].subjects["person"])
    assert first["how many, vi"] == len(worlds["vi"].subjects["person"])
    found = pages.documents(worlds, seed=3).data
    assert found == pages.documents(worlds, seed=3).data != pages.documents(worlds, seed=4).data
    assert found.count("<details") == len(pages.DOCUMENTS) and found.count("<details open") == 2
    assert found.count('lang="vi"') == len(pages.DOCUMENTS)
    assert "Overview in three columns" in pages.overview().data


def test_lines_cut_into_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "testbed" / "base")
    text = "the of <b>"
    html = pages.cut_into_tokens(tokenizer, {"en": [text, "another"], "zh": ["\U00020000"]}).data
    assert "&lt;" in html and "another" not in html
    assert "|" in html and "tokens)" in html  # a rare character takes several
    needed = pd.DataFrame(
        [("English", 3, 30, 30, 9, 3.0, 3.33, 1.0)],
        columns=["language", "questions", "characters", "bytes", "tokens", "tokens per question",
                 "characters per token", "tokens relative to en"],
    )  # fmt: skip
    assert "The same 3 questions" in pages.tokens_table(needed).to_html()


def test_the_model_beside_llama() -> None:
    model = make_tiny_llama()
    by = frame_of(pages.model_table(model)).set_index("")["model examined here"]
    layers, width = model.config.num_hidden_layers, model.config.intermediate_size
    assert by["layers"] == str(layers) and by["MLP neurons in all"] == f"{layers * width:,}"
    assert by["of these in MLPs"].endswith("%")


def test_training() -> None:
    log = pd.DataFrame({"step": [0, 100], "en": [6.0, 1.25], "zh": [7.0, 1.5]})
    recipe = {"batch": 10, "length": 100, "tokens": 2_500_000}
    assert "last values en 1.25, zh 1.50." in pages.training_curves(log, recipe).data
    text = pages.training_words(log, recipe).data
    assert "2.5 million tokens (en 45%, zh 30%, vi 25%)" in text and "1.25 (en), 1.50 (zh)" in text


def item_rows(answers: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"task": task, "language": task[-2:], "answer": answer, "choice": 1, "margin": margin,
             **{f"logprob_{i}": -1.0 - i for i in range(4)}}
            for task in TASKS
            for answer, margin in zip(answers, (-1.0, 0.5, 2.0, 3.0), strict=True)
        ]
    )  # fmt: skip


def test_the_first_item_of_each_task() -> None:
    items = item_rows([0, 1, 2, 3])
    requests = [
        SimpleNamespace(args=(f"prompt <{row}>", f" option {number}"))
        for row in range(len(items))
        for number in range(4)
    ]
    html = pages.first_items(items, requests, TASKS).data
    assert (
        html.count("<p><b>") == 6 and "prompt &lt;4&gt;" in html and "prompt &lt;5&gt;" not in html
    )
    assert "<li>option 0: -1.00 <b>(right)</b></li><li>option 1: -2.00 <b>(chosen)</b></li>" in html


def scores(low: float = 0.4) -> pd.DataFrame:
    return pd.DataFrame(
        [(task, 0.5 + 0.01 * i, 40, low if i else 0.2, 0.65, 0.25) for i, task in enumerate(TASKS)],
        columns=["task", "accuracy", "n", "low", "high", "chance"],
    )


def test_accuracy_in_words() -> None:
    text = pages.accuracy_words(scores(), item_rows([0, 1, 2, 3])).data
    assert "above chance for 5 of 6 tasks (not for knowledge_en)" in text
    assert "in 25% to 25% of a task's items, so that a preference" in text
    text = pages.accuracy_words(scores().iloc[1:], item_rows([0, 0, 0, 3])).data
    assert "for 5 of 5 tasks. The right" in text and "they are not balanced" in text
    table = pages.accuracy_table(scores())
    assert frame_of(table)["interval"][1] == "0.400 to 0.650"
    relations = pd.DataFrame(
        [("knowledge", "capital", 12, 0.5)], columns=["kind", "asked", "items per language", "en"]
    )
    assert "0.50" in pages.relation_table(relations).to_html()


def copier(*verdicts: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (f"reading_{x}", 40, 0.6, 0.5, 0.7, 0.55, verdict)
            for x, verdict in zip(LANGUAGES, verdicts, strict=False)
        ],
        columns=["task", "n", "accuracy", "low", "high", "copier", "verdict"],
    )


def test_reading_against_a_copier() -> None:
    some = copier("above", "not told apart", "below")
    assert "better than a copier in reading_en." in pages.copier_words(some).data
    assert "In reading_zh, reading_vi, where the model" in pages.difficulty_words(some).data
    none = copier("below")
    assert pages.copier_words(none).data.startswith("**In no language")
    assert "Every reading task is answered better" in pages.difficulty_words(copier("above")).data
    assert "0.550" in pages.copier_table(some).to_html()


def test_published_and_perplexity() -> None:
    table1 = pd.DataFrame(
        {"method": ["Org", "CRANE"], "en": [0.5, 9], "zh": [0.25, 9], "vi": [0.1, 9]}
    )
    assert frame_of(pages.published_table(table1)).values.tolist() == [[0.5, 0.25, 0.1]]
    found = pd.DataFrame(
        [("en", 20, 1.0, 2.718, 2.5, 2.9)],
        columns=["language", "windows", "loss", "perplexity", "low", "high"],
    )
    assert "windows of 64 tokens" in pages.perplexity_table(found, 64).to_html()


def test_the_gate() -> None:
    declined = pd.DataFrame(
        [("reading_en", 0.0, 0.8, 0.0, 1), ("reading_en", 0.3, 0.5, 0.0625, 10)],
        columns=["task", "fraction", "mean", "half_width", "count"],
    )
    assert "At 30% masked: reading_en 0.50." in pages.gate_curves(declined).data
    table = pages.gate_table(declined)
    assert frame_of(table).values.tolist() == [["reading_en", "0.800", "0.500 ± 0.062"]]
    assert "mean over 10 masks" in table.to_html()


def test_the_gate_in_words() -> None:
    verdicts = pd.DataFrame(
        {"requirement": ["room", "decline"], "measured": ["a", "b"], "holds": [True, True]}
    )
    curve = pd.DataFrame({"fraction": 0.0, "task": TASKS, "accuracy": scores()["accuracy"]})
    text = pages.gate_words(verdicts, curve, scores(), None).data
    assert text == (
        "All 2 requirements hold. The unmasked accuracies measured above are those in the gate's "
        "file."
    )
    other = curve.assign(accuracy=curve["accuracy"] + 0.125)
    failed = verdicts.assign(holds=[True, False])
    text = pages.gate_words(failed, other, scores(), None).data
    assert text.startswith("**1 of 2 requirements do not hold**: decline.")
    assert "by up to 0.125: this is another model" in text
    assert "asks 20 items per task" in pages.gate_words(verdicts, other, scores(), 20).data
    assert frame_of(pages.requirements_table(failed))["holds"].tolist() == ["yes", "NO"]


def test_how_hard_the_items_are() -> None:
    items = item_rows([0, 1, 2, 3])
    assert "knowledge_en 1.25, knowledge_zh 1.25" in pages.margins_figure(items, TASKS).data
    frame = frame_of(pages.difficulty_table(items, TASKS[3:])).set_index("task")
    assert frame.index.tolist() == TASKS[3:] and (frame["n"] == 4).all()
    shares = frame[["impossible", "between", "trivial"]]
    assert shares.values.tolist() == [[0.25, 0.75, 0.0]] * 3


def test_first_masks() -> None:
    found = pd.DataFrame(
        [(0.0, 0, 0.0, True), (0.03, 60, 1.5, False)],
        columns=["share", "n_neurons", "change", "restored"],
    )
    table = pages.first_masks_table(found, 3)
    assert frame_of(table).values.tolist() == [["0%", 0, 0.0, "yes"], ["3%", 60, 1.5, "NO"]]
    assert "on 3 windows" in table.to_html()


@pytest.mark.parametrize(("reading", "words"), [(0.9, "matters more"), (0.5, "matters no more")])
def test_one_test_per_language_or_one_in_all(reading: float, words: str) -> None:
    found = scores()
    found["accuracy"] = [0.5, 0.6, 0.5, reading, reading, reading]
    grid = pages.accuracy_grid(found, LANGUAGES)
    assert grid.T["zh"].tolist() == [0.6, reading]
    text = pages.grid_words(grid, found).data
    assert words in text and "0.100 (knowledge), 0.000 (reading)" in text
    assert "`knowledge_en`, `knowledge_zh`, `reading_vi`" in text
    assert "uncertain by up to 0.225" in text
    assert frame_of(pages.grid_table(grid))["language"].tolist() == list(LANGUAGES)


def test_how_many_items() -> None:
    tests = [binomtest(right, 160) for right in (80, 120)]
    row = frame_of(pages.how_many_items_table({160: tests})).iloc[0].to_dict()
    # Wilson's formula at z = 1.959964: (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n).
    assert row.pop("gap") == pytest.approx(0.6775763 - 0.5765608, abs=1e-6)
    assert row == {
        "items": 160,
        "interval of 0.50": "0.423 to 0.577",
        "interval of 0.75": "0.678 to 0.811",
    }
