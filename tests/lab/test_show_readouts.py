"""What sentences say of made-up outcomes, both ways."""

from __future__ import annotations

import pandas as pd
import pytest
from made_up_verdicts import first, judge, random_masks

from crane_lab.show import readouts, table_pages


def test_sentences_say_what_the_verdict_is() -> None:
    nulls = {("CRANE", "en"): random_masks()}
    clear = judge([("CRANE", "en", -1, 0.6, 0.39)], nulls=nulls)
    text = readouts.sentence(first(clear), {"en": "English", "zh": "Chinese"})
    assert text.startswith("**CRANE, English** (5 neurons): English drops by +20.0 points [")
    assert "In absolute and in relative terms the mask costs English clearly more than ev" in text
    assert "Among 200 random masks of its size in every layer, the difference is at perc" in text
    assert "LangSpec-F1 0.300 is at percentile 100 (p = 0.005)" in text
    null = judge([("CRANE", "en", -1, 0.79, 0.39)])
    text = readouts.sentence(first(null))
    assert (
        "In absolute and in relative terms the mask does not cost en clearly more than zh" in text
    )
    assert text.endswith("Whether random masks of its kind do as much was not measured (`n_null`).")
    wrong = judge([("CRANE", "zh", -1, 0.5, 0.39)])
    assert "the mask costs zh clearly less than en" in readouts.sentence(first(wrong))
    mixed = judge([("CRANE", "en", -1, 0.62, 0.28)])
    assert (
        "In absolute terms the mask costs en clearly more than every other language, in relative "
        "terms it does not cost en clearly more than zh."
    ) in readouts.sentence(first(mixed))


def test_an_empty_set_says_nothing() -> None:
    found = judge([("CRANE", "en", -1, 0.8, 0.4)], n_neurons=0)
    assert "no neuron is selected" in readouts.sentence(first(found))


def test_summaries_print_null_results_as_such() -> None:
    null = judge([("CRANE", "en", -1, 0.79, 0.39), ("CRANE", "zh", -1, 0.79, 0.39)])
    assert readouts.summary(null, "CRANE") == (
        "**CRANE**: its own language loses clearly more than every other under 0 of 2 masks in "
        "absolute terms and under 0 in relative terms, by the intervals over items alone (random "
        "masks of its kind were not measured): a null result."
    )
    full = judge([("CRANE", "en", -1, 0.6, 0.4)], nulls={("CRANE", "en"): random_masks()})
    assert readouts.summary(full, "CRANE").endswith(
        "under 1 in relative terms; LangSpec-F1 lies above its null for 1: in every case what the "
        "method is for."
    )
    mixed = judge([("CRANE", "en", -1, 0.6, 0.4), ("CRANE", "zh", -1, 0.6, 0.4)])
    assert "under 1 of 2 masks in absolute terms and under 1 in rel" in readouts.summary(
        mixed, "CRANE"
    )
    few = judge([("CRANE", "en", -1, 0.6, 0.4)], nulls={("CRANE", "en"): random_masks()[:10]})
    assert readouts.summary(few, "CRANE").endswith(
        "lies above its null for 0, and for 1 it cannot be told with so few random masks."
    )
    without = judge([("CRANE", "en", -1, 0.6, 0.4)], nulls={})
    assert first(without)["absolute"] == "open"  # without a null nothing is called clear
    text = readouts.summary(without, "CRANE")
    assert "under 1 of 1 masks" in text and text.endswith("of its kind were not measured).")


def spoken(kept: int, n: int = 70) -> pd.DataFrame:
    rows = [("Org", "", "en", 1.0), ("Org", "", "zh", 1.0)]
    rows += [("CRANE", "en", "en", kept / n), ("CRANE", "en", "zh", 1.0)]
    return pd.DataFrame(
        [
            {"method": m, "mask_language": y, "language": x}
            | {z: share if z == x else 0.0 for z in ("en", "zh")}
            | {"none": 1 - share, "n": n}
            for m, y, x, share in rows
        ]
    )


def test_leaving_a_language_is_told_from_noise() -> None:
    names = {"en": "English", "zh": "Chinese"}
    assert "CRANE, English (80%, unmasked 100%)" in readouts.left_language(spoken(56), names)
    assert readouts.left_language(spoken(69), names).startswith("No mask makes")
    panels = table_pages.spoken_panels(spoken(56), names)
    assert list(panels) == ["asked in English", "asked in Chinese"]
    assert list(panels["asked in English"].loc["CRANE · en"]) == pytest.approx([0.8, 0, 0.2])


def published(zh_crane: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            ("Org", "", None),
            ("LAPE", "en", 0.1),
            ("CRANE", "en", 0.3),
            ("Random", "en", 0.2),
            ("CRANE", "zh", zh_crane),
            ("Random", "zh", 0.2),
        ],
        columns=["method", "mask_language", "langspec_f1"],
    )


def test_whose_printed_value_is_the_largest() -> None:
    names = {"en": "English", "zh": "Chinese"}
    assert readouts.largest_published(published(0.15), names) == (
        "In the published table CRANE's is the largest for English (CRANE 0.3000, Random 0.2000), "
        "and another's for Chinese (CRANE 0.1500, Random 0.2000)."
    )
    assert readouts.largest_published(published(0.25), names).endswith(
        "English (CRANE 0.3000, Random 0.2000), Chinese (CRANE 0.2500, Random 0.2000)."
    )
    other = published(0.1).replace({"langspec_f1": {0.3: 0.05}})
    assert "CRANE's is the largest for no language, and" in readouts.largest_published(other, names)


def test_who_is_ahead_at_equal_budgets() -> None:
    verdicts = judge([("CRANE", "en", -1, 0.6, 0.4), ("LAPE", "en", -1, 0.8, 0.4)])
    verdicts["method"] = verdicts["method"].replace("LAPE", "LAPE matched")
    names = {"en": "English", "zh": "Chinese"}
    text = readouts.at_equal_budgets(verdicts, names)
    assert text.startswith(readouts.summary(verdicts, "CRANE"))
    assert text.endswith("is larger than LAPE's for English.")
    verdicts.loc[verdicts["method"] == "CRANE", "langspec_f1"] = 0.0
    text = readouts.at_equal_budgets(verdicts, names, published(0.1))
    assert "larger than LAPE's for no language. In the published table" in text


def test_rows_of_a_table_in_words() -> None:
    frame = pd.DataFrame(
        [("Table 1", "CRANE", "en"), ("Table 2", "LAPE", "zh")],
        columns=["table", "method", "mask_language"],
    )
    assert readouts.each_row(frame, readouts.mask_name, "; ") == (
        "Table 1 CRANE en; Table 2 LAPE zh"
    )
    assert list(readouts.with_mask(frame)) == ["table", "method", "mask"]
