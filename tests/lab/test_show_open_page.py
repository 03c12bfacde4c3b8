"""What notebooks 05 and 05b show beside the tables, on small data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from page_outputs import caption, cells
from page_outputs import rows as shown_rows

from crane_lab.engines.surface_judge import SurfaceJudge
from crane_lab.show import open_page
from crane_lab.testbed.rubric import SUBSCORES

PARTS = dict.fromkeys(SUBSCORES, 0.5)


def test_first_and_last_question_of_each_language() -> None:
    rows = [(x, f"open_{x}-{n}", str(n), f"{x} {n}?") for x in ("en", "zh") for n in range(3)]
    asked = pd.DataFrame(rows, columns=["language", "id", "cluster", "question"])
    table = open_page.questions_table(asked)
    assert caption(table) == "The first and the last of 3 questions per language"
    assert cells(table)["question"].to_list() == ["en 0?", "en 2?", "zh 0?", "zh 2?"]
    assert open_page.framed("<s> Q: x A:").data.endswith("```text\n<s> Q: x A:\n```")


def test_an_answer_taken_apart() -> None:
    answer: dict[str, Any] = {"question": "Who?", "text": "A. B. C.", "score": 2.126, **PARTS}
    explained: list[dict[str, Any]] = [
        {"sentence": "A.", "relation": "born_in", "value": "x", "true": True},
        {"sentence": "B.", "relation": "born_in", "value": "y", "true": False},
        {"sentence": "C.", "relation": None, "value": None, "true": None},
    ]
    said, table, parts = open_page.taken_apart(answer, explained)
    assert said.data == "<p><b>Who?</b> “A. B. C.”</p>"
    assert cells(table)["true"].to_list() == ["true", "false", "nothing stated"]
    first = SUBSCORES[0].removesuffix("_score")
    assert parts.data.startswith(f"Its parts: {first} 0.50, ")
    assert parts.data.endswith("Its grade: 2.13.")


def test_agreement_in_a_table() -> None:
    agreement = pd.DataFrame(
        [{"graders": "a and b", "within 1": 0.5, "within 2": 1.0, "difference": 0.25}]
    )
    assert list(cells(open_page.graders_table(agreement)).loc[0]) == [
        *("a and b", "50%", "100%", "+0.25")
    ]


ITEMS = pd.DataFrame(
    [
        ("Org", "", -1, "en", "en-0", "Q0?", "first", 8.0, True, "stop"),
        ("Org", "", -1, "en", "en-1", "Q1?", "second", np.nan, False, "stop"),
        ("CRANE", "en", -1, "en", "en-0", "Q0?", "worse", 2.0, True, "stop"),
        ("CRANE", "zh", -1, "en", "en-0", "Q0?", "not shown", 3.0, True, "stop"),
        ("Random", "en", 0, "en", "en-0", "Q0?", "seed 0", 4.0, True, "stop"),
        ("Random", "en", 1, "en", "en-0", "Q0?", "seed 1", 5.0, True, "stop"),
    ],
    columns=[
        *("method", "mask_language", "seed", "language", "id"),
        *("question", "text", "score", "in_language", "finish"),
    ],
)


def test_grades_and_languages_are_counted() -> None:
    assert open_page.graded_in_words(ITEMS, {"en": "English"}).data == (
        "6 answers were graded; 1 got no grade that could be read. Without a mask 1 of 2 in "
        "English came in another language."
    )


def test_what_cannot_be_told_and_thoughts_are_said() -> None:
    more = ITEMS.assign(language="bo", in_language=np.nan, finish="thinking")
    said = open_page.graded_in_words(pd.concat([ITEMS, more]), {"en": "English", "bo": "bo"}).data
    assert "1 of 2 in English came in another language. For bo this cannot be told." in said
    assert "6 ended within the model's thoughts and count as empty answers." in said


def test_lowest_and_highest_grade_of_each_language() -> None:
    rows = [
        ("en", "Q0?", "fine", 1.0, 10.0),
        ("en", "Q1?", "no grade", 1.0, np.nan),
        ("en", "Q2?", "as fine", 1.0, 10.0),
        ("en", "Q3?", "bad", 0.25, 3.25),
        ("zh", "Q0?", "alone", 0.5, 5.5),
    ]
    graded = pd.DataFrame(rows, columns=["language", "question", "text", "language_score", "score"])
    read = cells(open_page.extremes_table(graded, ("language_score",)))
    assert list(read) == ["asked in", "question", "answer", "language", "score"]
    assert read.to_numpy().tolist() == [
        ["en", "Q3?", "bad", "0.25", "3.25"],
        ["en", "Q0?", "fine", "1.00", "10.00"],
        ["zh", "Q0?", "alone", "0.50", "5.50"],
    ]
    assert list(cells(open_page.extremes_table(graded, ()))) == [
        *("asked in", "question", "answer", "score")
    ]


def test_a_judge_without_any_grade_shows_none() -> None:
    columns = ["language", "question", "text", "score"]
    graded = pd.DataFrame([("en", "Q0?", "a", np.nan)], columns=columns)
    assert shown_rows(open_page.extremes_table(graded, ())) == []


@pytest.mark.parametrize("subscores", [SUBSCORES, SurfaceJudge.subscores])
def test_parts_of_any_judge_in_a_table(subscores: tuple[str, ...]) -> None:
    parts = dict.fromkeys(subscores, 0.5)
    frame = pd.DataFrame([{"method": "Org", "language": "en", **parts, "score": 3.456, "n": 2}])
    read = cells(open_page.parts_table(frame))
    short = [name.removesuffix("_score") for name in subscores]
    assert list(read) == ["method", "asked in", *short, "score", "n"]
    assert read.loc[0, "score"] == "3.46"
    assert read.loc[0, "variety"] == "0.50"
    assert read.loc[0, "n"] == "2"


def test_the_first_question_under_every_mask_made_for_it() -> None:
    table = open_page.answers_table(ITEMS, "en", "English")
    assert caption(table) == "English: Q0?"
    assert cells(table).to_numpy().tolist() == [
        ["none", "first", "8.00"],
        ["CRANE", "worse", "2.00"],
        ["Random", "seed 0", "4.00"],
    ]


def test_answers_by_penalty() -> None:
    graded = pd.DataFrame(
        {"language": "en", "score": [8.0, 6.0, 7.0], "n_tokens": 10, "finish": ["length"] * 3}
    )
    read = cells(open_page.penalty_table({1.1: graded, 1.0: graded.assign(finish="stop")}))
    assert read["penalty"].to_list() == ["1.1", "1.0"]
    assert str(read.loc[0, "grade"]).startswith("7.00 [")
    assert read["cut off"].to_list() == ["100%", "0%"]
