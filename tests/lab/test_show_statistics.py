"""What notebook 08 shows of other statistics than kurtosis, and of two halves of the texts."""

from __future__ import annotations

import pandas as pd
import pytest
from page_outputs import alt, caption, cells, rows

from crane_core.concentration import STATISTICS
from crane_lab.show import statistics_pages
from crane_lab.study import summaries

NAMES = list(STATISTICS)
LABELS = [s.label for s in STATISTICS.values()]


def test_the_registry_lists_every_statistic() -> None:
    found = cells(statistics_pages.registry())
    assert found["statistic"].to_list() == LABELS
    assert set(found["memory"]) == {"running sums", "a sample of the texts"}


RHO = pd.DataFrame(
    [
        (kind, a, b, x, (1.0 if a == b else 0.25) if kind == "between" else level)
        for kind, level in (("between", 1.0), ("halves", 0.5), ("languages", -0.125))
        for a in NAMES
        for b in (NAMES if kind == "between" else [a])
        for x in ("en", "zh")
    ],
    columns=["kind", "a", "b", "language", "rho"],
)


def test_agreement_of_statistics_with_each_other_and_with_themselves() -> None:
    text = alt(statistics_pages.agreement_figure(RHO))
    assert f"{LABELS[0]} and {LABELS[1]} +0.25; " in text and "+1.00" not in text
    table = statistics_pages.statistics_reliability(RHO, 1000)
    assert "(500 each)" in caption(table)
    assert rows(table)[0] == [LABELS[0], "+0.50", "-0.12"]


def selected(verdict: str) -> pd.DataFrame:
    """Kurtosis and another statistic, alone and as a contrast, in two languages."""
    return pd.DataFrame(
        [
            {
                "statistic": name,
                "how": how,
                "mask_language": x,
                "langspec_f1": f1,
                "langspec_f1_low": f1 - 0.05,
                "langspec_f1_high": f1 + 0.05,
                "langspec_f1_random": 0.1,
                "selectivity": selectivity,
                "selectivity_low": selectivity - 0.05,
                "selectivity_high": selectivity + 0.05,
                "selectivity_random": -0.1,
                "jaccard": 0.5,
                "jaccard_chance": 0.1,
                "repeat": 0.75,
                "repeat_chance": 0.1,
                "verdict": verdict if name != "kurtosis" else "open",
            }
            for name, f1, selectivity in (("kurtosis", 0.2, 0.0), (NAMES[1], 0.4, 0.5))
            for how in ("alone", "contrast")
            for x in ("en", "zh")
        ]
    ).assign(
        langspec_f1=lambda table: table["langspec_f1"] + 0.01 * (table["how"] == "contrast"),
        selectivity=lambda table: table["selectivity"] - 0.02 * (table["how"] == "contrast"),
    )


RANDOM = pd.DataFrame(
    {
        "kind": ["default", "default", "default", "share"],
        "mask_language": ["en", "en", "zh", "en"],
        "seed": [0, 1, 0, 7],
        "langspec_f1": [0.1, 0.3, 0.2, 0.9],
    }
)
SWEEP = pd.DataFrame(
    {
        "choice": "seed",
        "reference": True,
        "mask_language": ["en", "zh"],
        "langspec_f1": [0.25, 0.75],
        "selectivity": [-0.5, 0.0],
        "verdict": ["smaller", "larger"],
    }
)


def test_what_statistics_select_in_words_and_numbers() -> None:
    table = selected("larger")
    text = alt(statistics_pages.selected(table))
    assert f"{LABELS[0]}, alone: en 0.20 and +0.000, zh 0.20 and +0.000; " in text
    assert text.index(f"{LABELS[1]}, alone") < text.index(f"{LABELS[0]}, contrast")
    shown = statistics_pages.scored(summaries.of_statistics(table, RANDOM), SWEEP, RANDOM)
    assert "out of 2 languages" in caption(shown) and "of 2 random masks" in caption(shown)
    assert (
        "CRANE's own sets: LangSpec-F1 0.500, selectivity -0.250, 1 hurt their own language most"
        in caption(shown)
    )
    assert rows(shown)[0] == [LABELS[1], "alone", "0.400", "2", "+0.500", "2", "0.75"]


@pytest.mark.parametrize("verdict", ["larger", "open"])
def test_whether_any_statistic_does_what_a_mask_is_for(verdict: str) -> None:
    table = selected(verdict)
    text = statistics_pages.scored_in_words(summaries.of_statistics(table, RANDOM), table).data
    if verdict == "larger":
        assert f"every language: {LABELS[1]}, alone; {LABELS[1]}, contrast. Kurtosis" in text
    else:
        assert "every language: of no statistic. Kurtosis" in text
    assert "alone is number 3 of 4 by mean selectivity and does so in 0 of 2" in text
    assert "and contrast is number 4 of 4" in text
    assert "LangSpec-F1 with selectivity is +0.60 (mean over languages)" in text
    assert "These are 8 masks" in text


def halves(jaccard: float) -> pd.DataFrame:
    means = {"spearman": 0.8, "spearman, layer 0": 0.9, "spearman, layer 1": 0.7}
    means |= {"spearman, other language": 0.6, "jaccard": jaccard, "chance": 0.05, "neurons": 80.0}
    return pd.DataFrame(
        [
            (n, x, measure, mean / (2 if n == 30 else 1), 0.0, 1.0)
            for n in (30, 1500)
            for x in ("en", "zh")
            for measure, mean in means.items()
        ],
        columns=["n", "language", "measure", "mean", "low", "high"],
    )


def test_two_halves_in_figures() -> None:
    text = alt(statistics_pages.two_halves(halves(0.7)))
    assert text.startswith("Split-half agreement, from 30 to 1,500 windows, mean over languages.")
    assert "within a language: 0.40 to 0.80. Between languages: 0.30 to 0.60." in text
    assert "Jaccard of the sets: 0.35 to 0.70. By chance: 0.03 to 0.05." in text
    text = alt(statistics_pages.two_halves_by_layer(halves(0.7)))
    assert "layer 0: 0.45 to 0.90; layer 1: 0.35 to 0.70" in text


def test_two_halves_in_words() -> None:
    text = statistics_pages.two_halves_in_words(halves(0.7)).data
    assert (
        "From 30 to 1,500 windows per half the rank correlation of kurtosis goes from 0.40" in text
    )
    assert "0.40 to 0.80" in text and "*different* languages from 0.30 to 0.60" in text
    assert "from 0.35 to 0.70, where random sets would have 0.05" in text
    assert text.endswith("are in both from 1,500 windows per half.")
    text = statistics_pages.two_halves_in_words(halves(0.4)).data
    assert "Even with 1,500 windows per half, fewer than half of all neurons" in text


@pytest.mark.parametrize("hits", [2, 1])
def test_conclusions_on_statistics(hits: int) -> None:
    scored = pd.DataFrame(
        {"statistic": ["gini", "mean"], "how": ["alone", "contrast"], "own_most": [hits, 1]}
    )
    first, second = statistics_pages.statistics_conclusions(scored, halves(0.5), 2).data.split("\n")
    assert first.endswith(f"in every language: {'gini, alone' if hits == 2 else 'none'}.")
    assert "Two halves of 1,500 windows each" in second
    assert "a correlation of 0.80 and select sets with a Jaccard index of 0.50" in second
