"""What notebook 09 shows of criteria, from small tables with known outcomes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from page_outputs import alt, caption, cells, rows

from crane_lab.show import criteria_pages

NAMES = {"en": "English", "zh": "Chinese"}
CRANE = "kurtosis, contrast"


def agreed(crane: float = 0.2, width: float = 0.1, ahead: float = 0.3) -> pd.DataFrame:
    """CRANE's score at `crane`, LAPE ahead of it by `ahead`, all intervals `width` to each side."""
    return pd.DataFrame(
        [
            {
                "criterion": name,
                "language": x,
                "truth": truth,
                "rho": rho,
                "low": rho - width,
                "high": rho + width,
                "ahead": rho - crane,
                "ahead_low": rho - crane - width,
                "ahead_high": rho - crane + width,
                "set_to": value,
            }
            for value in ("zero", "mean")
            for truth, more in (("necessity", 0.01), ("selectivity", 0.0))
            for x in ("en", "zh", "all")
            for name, rho in ((CRANE, crane + more), ("LAPE", crane + ahead + more))
        ]
    )


TRUST = pd.DataFrame(
    [(x, kind, 0.8, 0.9) for x in NAMES for kind in ("necessity", "selectivity")],
    columns=["language", "truth", "halves", "all"],
)


def test_correlations_in_a_figure_and_a_table() -> None:
    text = alt(criteria_pages.correlations(agreed(), TRUST, NAMES))
    assert text.endswith(f"Mean over languages, selectivity: LAPE +0.50; {CRANE} +0.20.")
    table = criteria_pages.correlations_table(agreed(), CRANE)
    assert f"default score ({CRANE})" in caption(table)
    found = cells(table).set_index("criterion")
    assert found.columns.to_list() == [
        *("selectivity (zero)", "necessity (zero)", "selectivity (mean)", "necessity (mean)"),
        "ahead of CRANE",
    ]
    assert rows(table)[0][1:] == [
        *("+0.50 [+0.40, +0.60]", "+0.51 [+0.41, +0.61]") * 2,
        "+0.30 [+0.20, +0.40]",
    ]


@pytest.mark.parametrize(
    ("crane", "verdict", "above"),
    [
        (0.2, "clearly above a random order.", 2),
        (0.05, "not to be told from a random order: a null result.", 1),
        (-0.5, "clearly below a random order.", 0),
    ],
)
def test_crane_is_judged_against_a_random_order(crane: float, verdict: str, above: int) -> None:
    text = criteria_pages.correlations_in_words(agreed(crane), CRANE).data
    assert f"at {crane:+.2f} [{crane - 0.1:+.2f}, {crane + 0.1:+.2f}] (mean over" in text
    assert (
        f"which is {verdict} {above} of 2 criteria are clearly above a random order; 1 are" in text
    )
    assert f"The first is LAPE with {crane + 0.3:+.2f} [" in text
    near = criteria_pages.correlations_in_words(agreed(crane, ahead=0.05), CRANE).data
    assert "; 0 are clearly ahead of CRANE" in near


FOUND = pd.DataFrame(
    [
        (name, x, budget, share, chance)
        for name, shares in ((CRANE, (0.5, 0.25)), ("LAPE", (1.0, 0.75)))
        for x, chance in (("en", 0.1), ("zh", 0.3))
        for budget, share in zip((8, 16), shares, strict=True)
    ],
    columns=["criterion", "language", "budget", "significant", "significant_chance"],
)


def test_precision_ends_with_a_random_order() -> None:
    assert rows(criteria_pages.precision_table(FOUND, ["LAPE", CRANE])) == [
        ["LAPE", "100%", "75%"],
        [CRANE, "50%", "25%"],
        ["random order", "20%", "20%"],
    ]
    text = alt(criteria_pages.precision_curves(FOUND, ["LAPE", CRANE], NAMES, ["LAPE"]))
    assert text.endswith(f"largest budget: LAPE 75%; {CRANE} 25%; random order 20%.")


def damaged(**of_english: float) -> pd.DataFrame:
    """What each order's eight neurons do: own loss .5, others' .5 less `difference`."""
    differences = {CRANE: 0.1, "LAPE": 0.3, "single effects": 0.35, "greedy search": 0.4}
    differences |= {"random order": 0.0}
    rows: list[dict[str, Any]] = []
    for name, difference in differences.items():
        for x in NAMES:
            for seed in (0, 1) if name == "random order" else (-1,):
                here = (
                    difference
                    + (of_english.get(name, 0.0) if x == "en" else 0.0)
                    + 0.01 * (seed > 0)
                )
                rows.append(
                    {
                        "criterion": name,
                        "language": x,
                        "seed": seed,
                        "budget": 8,
                        "own": 0.5,
                        "own_se": 0.01,
                        "other": 0.5 - here,
                        "difference": here,
                        "difference_se": 0.1,
                    }
                )
    table = pd.DataFrame(rows)
    return pd.concat([table, table.assign(budget=16, own=1.0)], ignore_index=True)


def test_damage_in_figures_and_a_table() -> None:
    text = alt(criteria_pages.damage_curves(damaged(), NAMES, 8))
    assert "own loss increase less the largest other (nats), by number" in text
    assert "At 8 neurons, mean over languages: greedy search +0.400" in text
    text = alt(criteria_pages.damage_curves(damaged(), NAMES, 16, "own", [CRANE]))
    assert "increase of the masked language's loss" in text and "LAPE +1.000" in text
    table = criteria_pages.damage_table(damaged(), NAMES, 8)
    assert "under masks of 8 neurons" in caption(table)
    found = cells(table).set_index("set")
    assert found.index[0] == "greedy search" and found.columns[0] == "English"
    assert [CRANE, "+0.500 | +0.400", "+0.500 | +0.400", "+0.100"] in rows(table)


def test_clear_hits_and_the_greedy_search_in_words() -> None:
    scores = [CRANE, "LAPE"]
    text = criteria_pages.damage_in_words(damaged(), scores, NAMES, 8, CRANE).data
    assert "by language:\n\n- English, Chinese: LAPE\n\nCRANE's default score: for no" in text
    assert "is +0.100, that of the order by single effects +0.350, of the greedy search" in text
    assert text.endswith("No criterion beats the greedy search.")

    lucky = damaged(**{CRANE: 0.5})
    text = criteria_pages.damage_in_words(lucky, scores, NAMES, 8, CRANE).data
    assert f"- English, Chinese: LAPE\n- English: {CRANE}\n\nCRANE's default score: Engl" in text
    assert f"it is beaten in English ({CRANE}). It takes many" in text

    weak = damaged(LAPE=-1.0)[lambda t: ~((t["criterion"] == "LAPE") & (t["language"] == "zh"))]
    weak = weak[weak["criterion"] != "greedy search"]
    text = criteria_pages.damage_in_words(weak, scores, NAMES, 8, CRANE).data
    assert "by language:\n\n- None. A null result.\n\nCRANE's" in text
    assert "greedy search" not in text


def ratios(*medians: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (kind, budget, m / 2, m if budget == 16 else 7.0, 2 * m)
            for kind, m in zip(("criteria", "single effects"), medians, strict=True)
            for budget in (8, 16)
        ],
        columns=["kind", "budget", "low", "median", "high"],
    )


@pytest.mark.parametrize(
    ("medians", "verdict"),
    [
        ((1.5, 2.0), "Sets do more than their neurons do alone."),
        ((0.5, 0.8), "Sets do less than their neurons do alone."),
        ((0.5, 2.0), "There is no one answer for all kinds of sets."),
    ],
)
def test_whether_a_set_is_the_sum_of_its_neurons(
    medians: tuple[float, float], verdict: str
) -> None:
    added = pd.DataFrame({"own": [1.0, 2.0, 3.0, 0.0], "predicted": [1.0, 2.0, 3.0, 0.001]})
    text = criteria_pages.additivity_in_words(ratios(*medians), added).data
    first, second = medians
    assert f"criteria {first:.2f} (16 neurons), single effects {second:.2f} (16 neurons)" in text
    assert verdict in text
    assert "over the 3 sets whose sum is above five millinats is 1.00." in text
    text = alt(criteria_pages.additivity_figure(ratios(*medians)))
    assert f"criteria: 8 7.00, 16 {first:.2f}." in text


def test_conclusions() -> None:
    counts = pd.DataFrame(
        [
            ("zero", "en", "selectivity", 12, 0.125),
            ("zero", "zh", "selectivity", 3, 0.03),
            ("zero", "en", "necessity", 99, 0.9),
            ("mean", "en", "selectivity", 98, 0.9),
        ],
        columns=["set_to", "language", "kind", "n", "share"],
    )
    text = criteria_pages.criteria_conclusions(counts, agreed(), damaged(), NAMES, 8, CRANE).data
    first, second, third = text.split("\n")
    assert first == "- Selective neurons, by single ablation: English 12 (12%), Chinese 3 (3%)."
    assert f"LAPE (+0.50) and {CRANE} (+0.20) come first of 2" in second
    assert second.endswith("score is number 2 (+0.20), LAPE number 1.")
    assert third.endswith(
        "is largest for LAPE; CRANE's default score is number 2 of 3, random order included."
    )
