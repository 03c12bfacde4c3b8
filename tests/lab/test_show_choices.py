"""What notebook 08 shows of the sweep over choices, from a small sweep with known outcomes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from page_outputs import alt, caption, cells, rows

from crane_lab.show import choices_pages
from crane_lab.study import choices, summaries

SEED, RULE, REDUCTION = (choices.LABELS[name] for name in ("seed", "rule", "reduction"))


def row(
    choice: str, value: str, reference: bool, x: str, f1: float, selectivity: float, **more: Any
) -> dict[str, Any]:
    found = {
        "choice": choice,
        "value": value,
        "reference": reference,
        "mask_language": x,
        "n_neurons": 100,
        "share": 0.05,
        "jaccard": 1.0 if reference else 0.5,
        "jaccard_chance": 0.03,
        "langspec_f1": f1,
        "langspec_f1_low": f1 - 0.1,
        "langspec_f1_high": f1 + 0.1,
        "langspec_f1_random": 0.1,
        "langspec_f1_above": f1 - 0.1,
        "selectivity": selectivity,
        "selectivity_low": selectivity - 0.01,
        "selectivity_high": selectivity + 0.01,
        "selectivity_random": -0.02,
        "verdict": "larger" if selectivity > 0.01 else "open",
    }
    return found | more


SWEEP = pd.DataFrame(
    [
        row("seed", "0", True, "en", 0.2, 0.0),
        row("seed", "0", True, "zh", 0.2, 0.5),
        row("seed", "1", False, "en", 0.25, 0.0),
        row("seed", "1", False, "zh", 0.25, 0.5),
        row("rule", "contrast", True, "en", 0.2, 0.0),
        row("rule", "contrast", True, "zh", 0.2, 0.5),
        row("rule", "top", False, "en", 0.5, 0.02, jaccard=0.25),
        row("rule", "top", False, "zh", 0.5, 0.6),
        row("rule", "none", False, "en", 0.2, 0.0, n_neurons=0, jaccard=float("nan")),
        row("reduction", "sum", True, "en", 0.2, 0.0),
        row("reduction", "mean", False, "en", 0.2, 0.0, jaccard=1.0),
    ]
)
MADE = {
    "settings": {
        "languages": ["en", "zh"],
        "n_samples": 1000,
        "window": 64,
        "n_perplexity": 200,
        "task_limit": None,
    }
}


def test_shipped_results_that_are_the_runs_own() -> None:
    again = pd.DataFrame({"language": ["en", "zh"], "n_neurons": [12, 34], "equal": [True, False]})
    text = choices_pages.origin(SWEEP, MADE, [], again).data
    assert "12 (en), 34 (zh) neurons from 30 windows; equal to the shipped sets for 1 of 2" in text
    assert "7 readings of 3 choices, for en, zh; default 1,000 windows of 64 tokens" in text
    assert "200 held-out windows per language, all items per task." in text


def test_shipped_results_of_another_model_say_so() -> None:
    made = {"settings": MADE["settings"] | {"task_limit": 20}}
    text = choices_pages.origin(SWEEP, made, ["model", "perplexity_corpus"]).data
    assert text.startswith("**These results are not those of your run.**")
    assert "another model, perplexity corpus and say nothing about yours" in text
    assert "20 items per task." in text


def test_shipped_results_of_this_run_say_so() -> None:
    assert choices_pages.whose([]).endswith("of your run.") and "not" not in choices_pages.whose([])


def test_the_default_stands_with_its_intervals_beside_random_masks() -> None:
    table = choices_pages.default_reading_table(SWEEP)
    found = cells(table).set_index("mask")
    assert found.index.to_list() == ["en", "zh"]
    assert rows(table)[1][1:] == [
        *("100", "5.0%", "0.200 [0.100, 0.300]", "0.100"),
        *("+0.500 [+0.490, +0.510]", "-0.020"),
    ]


def test_spans_of_all_choices_in_words() -> None:
    text = alt(choices_pages.glance(SWEEP))
    assert f"{RULE}: Jaccard with the default 0.25 to 1.00, LangSpec-F1 0.20 to 0.50" in text
    assert f"{REDUCTION}: Jaccard with the default 1.00 to 1.00" in text
    assert "selectivity +0.00 to +0.60; " in text


def test_the_summary_is_shown_with_three_decimals() -> None:
    found = cells(choices_pages.departures_table(summaries.of_choices(SWEEP)))
    assert found["choice"].to_list() == [RULE, SEED, REDUCTION]
    assert found["LangSpec-F1, largest"].to_list() == ["0.300", "0.050", "0.000"]
    assert found["mean"].to_list() == ["0.225", "0.050", "0.000"]
    assert found["values"].to_list() == ["3", "2", "2"]


def test_what_matters_is_measured_against_a_new_draw() -> None:
    text = choices_pages.what_matters(SWEEP).data
    assert f"**{RULE}** (0.300, 6.0 times a new draw of windows); **{SEED}** (0.050, 1.0" in text
    assert f"- By the mean departure: {RULE}, {SEED}, {REDUCTION}.\n" in text
    assert f"No more than a new draw of windows (0.050): {REDUCTION}." in text
    assert f"- Nothing at all: {REDUCTION}." in text
    some = SWEEP[SWEEP["choice"] != "reduction"]
    assert "- Nothing at all: none." in choices_pages.what_matters(some).data


def test_a_choice_is_shown_and_told() -> None:
    shown = choices_pages.choice(SWEEP, "rule")
    text = alt(shown)
    assert "contrast ★: en 100 neurons, Jaccard 1.00, LangSpec-F1 0.20, selectivity +0.000" in text
    assert "top: en 100 neurons, Jaccard 0.25" in text
    told = choices_pages.choice_in_words(SWEEP, "rule")
    assert f"<p>{told}</p>" in str(shown.data)
    assert told == (
        "Largest departure of LangSpec-F1: 0.300 (6.0 times a new draw of windows). Least overlap "
        "with the default: top, en, Jaccard 0.25 (random 0.03). The mask clearly hurts its own "
        "language most in 3 of 5 cases by held-out loss and its interval over windows: contrast "
        "(zh), top (en), top (zh). No neuron at all is selected under none (en)."
    )


def test_all_choices_are_rows_and_folded_figures() -> None:
    table = cells(choices_pages.choices_table(SWEEP))
    assert list(table["choice"]) == [SEED, RULE, REDUCTION]
    assert list(table.loc[1])[1:] == ["0.300", "6.0", "top, en", "0.25 (0.03)", "3 of 5"]
    unknown = cells(choices_pages.choices_table(SWEEP.assign(jaccard=float("nan"))))
    assert list(unknown.loc[1])[3:5] == ["", ""]
    assert len(choices_pages.each_choice(SWEEP)) == 3
    odd = SWEEP.replace({"value": {"top": "<b>top</b>"}})
    assert "&lt;b&gt;top&lt;/b&gt; (zh)" in str(choices_pages.choice(odd, "rule").data)


def test_a_choice_without_hits_or_overlaps_says_less() -> None:
    assert choices_pages.choice_in_words(SWEEP, "reduction") == (
        "Largest departure of LangSpec-F1: 0.000 (0.0 times a new draw of windows). Least overlap "
        "with the default: mean, en, Jaccard 1.00 (random 0.03). The mask clearly hurts its own "
        "language most in 0 of 2 cases by held-out loss and its interval over windows."
    )
    unknown = SWEEP.assign(jaccard=float("nan"))
    assert "overlap" not in choices_pages.choice_in_words(unknown, "reduction")
    many = [row("rule", str(i), i == 0, "en", 0.2, 0.5) for i in range(10)]
    swept = pd.concat([SWEEP[SWEEP["choice"] == "seed"], pd.DataFrame(many)])
    text = choices_pages.choice_in_words(swept, "rule")
    assert text.endswith(
        "in 10 of 10 cases by held-out loss and its interval over windows."
    )  # too many to list


def test_rules_are_compared_by_their_first_three() -> None:
    table, text = choices_pages.under_rules(
        {
            "one": pd.Series({"seed": 4.0, "rule": 3.0, "window": 2.0, "site": 1.0}),
            "two": pd.Series({"seed": 1.0, "rule": 3.0, "window": 2.0, "site": 4.0}),
        }
    )
    assert rows(table)[1] == [
        *("two", choices.LABELS["site"], RULE, choices.LABELS["window"]),
    ]
    assert "under 2 rules" in caption(table)
    assert text.data == (
        f"Among the first three under all 2 rules: {RULE}, {choices.LABELS['window']}."
    )
    _, none = choices_pages.under_rules(
        {"one": pd.Series({"seed": 1.0}), "two": pd.Series({"rule": 1.0})}
    )
    assert none.data.endswith("rules: none.")


@pytest.mark.parametrize("hit", [True, False])
def test_conclusions_say_what_was_found_or_that_nothing_was(hit: bool) -> None:
    swept = SWEEP if hit else SWEEP.assign(verdict="open")
    first, second = choices_pages.choices_conclusions(swept).data.split("\n")
    assert first.startswith(f"- The three choices that move LangSpec-F1 most are {RULE}, {SEED}")
    assert f"; {REDUCTION} move it no more" in first
    if hit:
        assert "in 1 of 2 languages; over all readings in 5 of 11 cases" in second
        assert second.endswith(f"they do so in every language: {RULE} = top.")
    else:
        assert "in 0 of 2 languages; over all readings in 0 of 11 cases" in second
        assert second.endswith("no choice we tried turns the result around.")
