"""What the pages of Tables 1 to 4 share, on small tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up_verdicts import judge, random_masks
from page_outputs import alt, caption, cells

from crane_lab import audit
from crane_lab.show import readouts, table_pages, tables

NAMES = {"en": "English", "zh": "Chinese"}


def results(chat: float = 0.0) -> pd.DataFrame:
    """Org, CRANE's two masks and a random row, with intervals."""
    frame = pd.DataFrame(
        [
            ("Org", "", 0, 0.8, 0.6, np.nan),
            ("CRANE", "en", 1234, 0.6 + chat, 0.6, 0.3),
            ("CRANE", "zh", 12, 0.8, 0.5, 0.2),
            ("Random", "en", 1234, 0.7, 0.65, 0.1),
        ],
        columns=["method", "mask_language", "n_neurons", "en", "zh", "langspec_f1"],
    )
    ends = {
        f"{x}_{end}": frame[x] + step
        for x in ("en", "zh", "langspec_f1")
        for end, step in (("low", -0.05), ("high", 0.05))
    }
    return frame.assign(**ends)


SEEDS = pd.DataFrame({"mask_language": ["en", "en"], "langspec_f1": [0.1, 0.2]})


def test_tables_as_read_and_in_words() -> None:
    table = pd.DataFrame(
        {
            "method": ["Org", "CRANE"],
            "mask_language": ["", "en"],
            "n_neurons": [0, 1234],
            "en": [0.8, 0.6],
            "langspec_f1": [np.nan, 0.3],
            "langspec_f1_low": [np.nan, 0.2],
            "langspec_f1_high": [np.nan, 0.4],
            "en_low": [0.75, 0.55],
            "en_high": [0.85, 0.65],
        }
    )
    shown = table_pages.with_intervals(table, ["en"], 2)
    assert list(shown.loc[1]) == [
        *("CRANE", "en", "1,234", "0.60 [0.55,\u00a00.65]", "0.300 [0.200,\u00a00.400]")
    ]
    assert shown.loc[0, "LangSpec-F1"] == "–"
    assert readouts.drops_of_rows(table, ["en"]) == [
        ("CRANE en: en +0.200, LangSpec-F1 0.300", 0.3)
    ]
    seeds = pd.DataFrame({"mask_language": ["en", "en"], "langspec_f1": [0.1, 0.2]})
    null, marks = table_pages.null_and_marks(table, seeds, {"en": "English"})
    assert marks == {"CRANE": {"English, n = 1,234": 0.3}}
    assert null["English, n = 1,234"].tolist() == [0.1, 0.2]
    assert readouts.strip_in_words(null, marks) == [
        ("English, n = 1,234: random 0.100, 0.200, CRANE 0.300", 0.3)
    ]


def test_results_table_says_what_its_brackets_are() -> None:
    table = table_pages.results_table(results(), NAMES, "Table 1, ours", n_seeds=3)
    read = cells(table)
    assert list(read) == ["method", "mask", "n", "en", "zh", "LangSpec-F1"]
    assert str(read.loc[1, "en"]).replace("&nbsp;", "\u00a0") == "0.600 [0.550,\u00a00.650]"
    assert read.loc[0, "LangSpec-F1"] == "–"
    assert caption(table).startswith("Table 1, ours. In brackets 95 % intervals from paired")
    assert caption(table).endswith("the range over 3 seeds")
    plain = table_pages.results_table(results(), NAMES, "Table 2", unit=readouts.GRADE)
    assert caption(plain) == "Table 2"
    assert str(cells(plain).loc[1, "en"]).startswith("0.60 [0.55,")


@pytest.mark.parametrize(("number", "chat"), [("2", False), ("4", True)])
def test_grades_tables_say_who_answers(number: str, chat: bool) -> None:
    said = caption(table_pages.grades_table(number, results(), NAMES, 70, "rubric", 5))
    assert said.startswith(
        f"Table {number}, ours: mean grade (1 to 10, judge: rubric) of 70 answers"
    )
    assert ("by the chat model" in said) is chat


def test_both_models_side_by_side() -> None:
    tasks = {"en": "knowledge_en", "zh": "reading_zh"}
    table = table_pages.both_models_table(results(), results(0.1), NAMES, tasks, 2)
    read = cells(table)
    assert list(read.columns[3:]) == ["base en", "base zh", "chat en", "chat zh", "LangSpec-F1"]
    assert list(read.loc[1, ["base en", "chat en"]]) == ["0.600", "0.700"]
    assert "accuracy on knowledge_en, reading_zh of base and chat model" in caption(table)


@pytest.mark.parametrize("number", ["1", "2", "3", "4"])
def test_published_tables_are_shown_as_printed(number: str) -> None:
    scores = audit.read_scores(number)
    table = table_pages.printed_table(number, scores)
    assert caption(table).startswith(f"Table {number}, published (Llama-2-7B")
    read = cells(table)
    assert len(read) == len(scores)
    assert read["LangSpec-F1"].iloc[1] == f"{scores['langspec_f1'].iloc[1]:.4f}"
    assert "_" not in "".join(read.columns)


def test_figures_of_drops_carry_their_numbers() -> None:
    text = alt(table_pages.drops_figure(results(), NAMES, "Ours", unit=readouts.GRADE, reach=1.0))
    assert text.startswith("Heatmap of drops in grade under each mask, with bars of LangSpec-F1. O")
    assert "CRANE en: en +0.20, zh +0.00, LangSpec-F1 0.300;" in text
    text = alt(table_pages.drops_figure(results(), NAMES, "Ours"))
    assert "drops in accuracy" in text and "CRANE en: en +0.200" in text
    for number, unit in (("1", "accuracy"), ("4", "grade")):
        text = alt(table_pages.published_drops(number, audit.read_scores(number)))
        assert f"drops in {unit}" in text and f"drawn from the paper's Table {number}." in text
    assert table_pages.largest_change([results()], ["en", "zh"]) == pytest.approx(0.2)
    assert table_pages.largest_change([results(), results(-0.2)], ["en"]) == pytest.approx(0.4)


def test_figure_6_says_only_a_masks_own_language() -> None:
    both = results().rename(columns={"en": "base_en", "zh": "base_zh"})
    both = both.assign(chat_en=0.5, chat_zh=[0.4, 0.3, 0.2, 0.1])
    text = alt(table_pages.transfer_figure(both, NAMES, NAMES, "Ours"))
    assert "Org: en base 0.800, chat 0.500, zh base 0.600, chat 0.400;" in text
    assert "CRANE zh: zh base 0.500, chat 0.200;" in text
    text = alt(table_pages.published_transfer(audit.read_scores("3")))
    assert "drawn from the paper's Table 3" in text and "CRANE vi: vi base" in text


def test_random_masks_are_dots_beside_marks() -> None:
    text = alt(table_pages.random_strip(results(), SEEDS, NAMES, "Title"))
    assert text.startswith("Title: a row per masked language")
    assert "English, n = 1,234: random 0.100, 0.200, CRANE 0.300; Chinese, n = 12: random" in text
    more = pd.concat([SEEDS.assign(langspec_f1=n / 10) for n in range(4)])
    text = alt(table_pages.random_strip(results(), more, NAMES, "Title"))
    assert "random 0.000 to 0.300 (8 masks), CRANE 0.300" in text
    none = table_pages.null_and_marks(results(), SEEDS.iloc[:0], NAMES)[0]
    assert [len(values) for values in none.values()] == [0, 0]


def test_verdicts_as_coloured_rows() -> None:
    asked = [("CRANE", "en", -1, 0.6, 0.39), ("CRANE", "zh", -1, 0.5, 0.39)]
    for nulls in (None, {("CRANE", "en"): random_masks()}):
        shown = table_pages.mask_table(
            judge([*asked, ("Random", "en", 0, 0.7, 0.4)], nulls=nulls), NAMES
        )
        data: pd.DataFrame = shown.data  # type: ignore[attr-defined]
        first, second = data.to_dict("records")
        assert first["mask"] == "CRANE, English" and first["absolute"] == "clearly most"
        assert second["relative"] == "clearly less than another"
        stands = "LangSpec-F1 and random masks"
        assert first[stands] == ("above" if nulls else "not measured")
        assert second[stands] == "not measured"
        assert f"background-color: {tables.GROUNDS['clearly most']}" in shown.to_html()


def test_verdicts_as_lists() -> None:
    verdicts = judge([("CRANE", "en", -1, 0.6, 0.4), ("Random", "en", 0, 0.7, 0.4)])
    plain = table_pages.mask_by_mask(verdicts, NAMES, fold=False).data
    assert [line[:20] for line in plain.split("\n")] == [
        "- **CRANE, English**",
        "- **Random, English*",
    ]
    assert "<summary>Mask by" in table_pages.mask_by_mask(verdicts, NAMES).data
    assert "grade points" in table_pages.mask_by_mask(verdicts, NAMES, readouts.GRADE).data
    assert table_pages.by_method(verdicts).data == f"- {readouts.summary(verdicts, 'CRANE')}"
    assert table_pages.by_method(verdicts, "So:").data.startswith("So:\n\n- **CRANE**")
    assert table_pages.bullets("a", "b").data == "- a\n- b"


def test_readings_and_the_best_method_by_each() -> None:
    read = pd.DataFrame(
        [("en", "CRANE", 0.3, 0.1), ("en", "LAPE", 0.2, 0.2)],
        columns=["mask", "method", "max", "sum"],
    )
    same = read.assign(sum=read["max"])
    table = table_pages.readings_table({"ours": read, "theirs": same}, "Two readings")
    assert caption(table) == "Two readings"
    assert list(cells(table).loc[0]) == ["ours", "en", "CRANE", "0.300", "0.100"]
    assert table_pages.best_by_reading({"ours": read, "theirs": same}, NAMES).data == (
        "The best method changes for English (ours)."
    )
    text = table_pages.best_by_reading({"theirs": same}, NAMES).data
    assert text.startswith("The best method is the same under all")


def test_languages_of_answers() -> None:
    spoken = pd.DataFrame(
        [("Org", "", "en", 1.0, 0.0), ("CRANE", "en", "en", 0.5, 0.5)],
        columns=["method", "mask_language", "language", "en", "zh"],
    ).assign(none=0.0, n=100)
    panels = table_pages.spoken_panels(spoken, NAMES)
    assert list(panels) == ["asked in English"]
    assert list(panels["asked in English"].loc["CRANE · en"]) == [0.5, 0.5, 0.0]
    text = alt(table_pages.spoken_figure(spoken, NAMES))
    assert "CRANE, English (50%, unmasked 100%)" in text


def test_sets_stand_beside_their_nulls() -> None:
    found = pd.DataFrame(
        [("LAPE", "en", 3), ("CRANE", "en", 12), ("CRANE", "zh", 0), ("Random", "en", 12)],
        columns=["method", "mask_language", "n_neurons"],
    ).assign(difference=0.1, langspec_f1=0.2)
    standing = {"null_masks": 60, "null_mean": 0.06, "null_high": 0.124}
    standing |= {"percentile": 78.3, "q": 0.413}
    for key, more in (("langspec_f1_", {}), ("", {"value": "difference", "name": "own"})):
        shown = table_pages.beside_nulls(
            found.assign(**{f"{key}{name}": value for name, value in standing.items()}), **more
        )
        value = "0.100" if more else "0.200"
        rows = [
            [method, "en", value, "0.060", "0.124", "60", "78", "0.413"]
            for method in ("LAPE", "CRANE")
        ]
        assert cells(shown).to_numpy().tolist() == rows
