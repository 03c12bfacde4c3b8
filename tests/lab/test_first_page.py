"""The findings on the book's first page: made from results, and not without them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from crane_lab.show import first_page, foreign
from crane_lab.show.first_page import MARK, RANDOM, OfModel
from crane_lab.study.candidates import CRANE as CANDIDATE
from crane_lab.study.confirmation import MERITS, OUTCOMES, PLAN, read_plan

ROOT = Path(__file__).resolve().parents[2]
CRANE = "kurtosis (logit), contrast"
OTHER = "mean relevance, contrast"
NAMES = {"en": "English", "zh": "Chinese"}


def model(title: str, own: float, verdict: str = "open", masks: int = 200) -> OfModel:
    """A model on which masks for English add `own` nats under CRANE, twice that under others."""
    losses = pd.DataFrame(
        [
            (method, x, 10, *((gain, 0.01) if x == "en" else (0.01, gain)), verdict)
            for method, gain in (("LAPE", own), ("LAPE matched", 2 * own), ("CRANE", own))
            for x in NAMES
        ],
        columns=["method", "mask_language", "n_neurons", "en", "zh", "verdict"],
    ).assign(null_masks=masks, verdict_items=verdict, percentile=50.0)
    damage = pd.DataFrame(
        [
            (criterion, x, seed, size, lead * size, 0.1)
            for criterion, lead, seeds in (
                (CRANE, 0.01, [-1]),
                ("LAPE", 0.3, [-1]),
                (OTHER, 0.2, [-1]),
                (RANDOM, 0, [0, 1]),
            )
            for x in NAMES
            for seed in seeds
            for size in (8, 32)
        ],
        columns=["criterion", "language", "seed", "budget", "difference", "difference_se"],
    )
    tasks = losses[["method", "mask_language"]].assign(
        langspec_f1_null_high=0.125,
        langspec_f1_null_masks=masks,
        against_random=["above"] + ["within"] * 5,
    )
    verdicts = pd.DataFrame({"paper": ["holds", "does not", "does not"]})
    tables = {
        "loss_verdicts": losses,
        "criteria_damage": damage,
        "table1_verdicts": tasks,
        "verdicts": verdicts,
    }
    return OfModel(title, tables, CRANE)


def test_sentences_are_made_of_the_results() -> None:
    said = first_page._sentences((model("the testbed", 0.05), model("Gemma", 0.5, "larger")))
    lines = said.split("\n")
    # Five bullets, each of one sentence.
    assert len(lines) == 5
    assert all(re.fullmatch(r"- \*\*[^*.]+\*\*: [^*]+\.", line) for line in lines)
    assert not any(re.search(r"\. [A-Z]", line) for line in lines)
    assert "0.05 to 0.05 nats per token on the testbed and 0.50 to 0.50" in lines[0]
    assert "0 of 2 sets on the testbed and 2 of 2 sets on Gemma" in lines[0]
    # At 8 neurons, the size nearest to CRANE's 10; LAPE sums no relevance.
    assert (
        "+1.60 nats per token more than any other on the testbed (mean relevance; kurtosis +0.08, "
        in said
    )
    assert "0.12 on the testbed (1 of 6 sets lie above their own)" in lines[3]
    assert ": of 3, held against the tables" in lines[4] and "1 hold, 2 do not" in lines[4]


def test_what_was_confirmed_is_said_with_its_intervals() -> None:
    plan = read_plan(ROOT / PLAN)
    names = [*(one.name for one in plan.mains), CANDIDATE.name]
    merits = pd.DataFrame(
        [
            (name, x, i, i - 0.5, i + 0.5)
            for i, name in enumerate(names)
            for x in ("pl", "tr", "all")
        ],
        columns=["candidate", "language", "merit", "low", "high"],
    )
    outcomes = pd.DataFrame({"outcome": ["confirmed", "cannot tell", "confirmed"]})
    tables = {MERITS: merits, OUTCOMES: outcomes}
    said = first_page._confirmed(tables, plan)
    assert "2 further languages of Gemma bear out 2 of its 3 hypotheses. Over 0.2 to 5 %" in said
    # A link, which `prose` does not know, would have all of it shown as it stands.
    assert str(foreign.prose(said).data) == said
    assert "+0.00 [−0.50, +0.50] by the signed mean; +1.00" in said
    assert "+2.00 [+1.50, +2.50] by the kurtosis (95 % over windows of text)" in said


def test_too_few_masks_for_tasks_are_said() -> None:
    few = model("Gemma", 0.5)
    few.tables["table1_verdicts"]["langspec_f1_null_masks"] = 10
    said = first_page._metric((model("the testbed", 0.05), few))
    assert "on the testbed (1 of 6 sets lie above their own)" in said
    assert "and a value on Gemma that cannot be told with 10 random masks a set." in said


def test_what_was_not_measured_is_not_said_to_be_none() -> None:
    said = first_page._sentences((model("the testbed", 0.05, masks=0), model("Gemma", 0.5)))
    assert "an unknown number on the testbed (no random masks were measured there) and 0 of" in said
    assert "a value on the testbed that cannot be told without random masks and 0.12 on Ge" in said
    assert "nan" not in said


def test_what_few_masks_cannot_decide_is_said() -> None:
    few = model("Gemma", 0.5)
    losses = few.tables["loss_verdicts"]
    losses.loc[losses["method"] == "LAPE matched", ["verdict_items", "percentile"]] = (
        "larger",
        100.0,
    )
    said = first_page._sentences((model("the testbed", 0.05), few))
    assert "0 of 2 sets on Gemma (2 more than every one of too few random masks)" in said
    assert "**Counting activations (LAPE) finds some**" in said and " -" not in said


def test_the_criteria_that_are_shown() -> None:
    both = model("the testbed", 0.05), model("Gemma", 0.5)
    assert first_page._criteria(both) == ["LAPE", OTHER, CRANE]
    both = both[0], OfModel("Gemma", both[1].tables, CRANE, (CRANE,))
    assert first_page._criteria(both) == [CRANE]


def test_headings_follow_the_results() -> None:
    none = first_page._sentences((model("the testbed", 0.05), model("Gemma", 0.5)))
    assert "selects are not shown to be those that a language needs**" in none
    assert "**Other sums of the very same relevance do find them**" in none
    assert "**Counting activations (LAPE) finds none**" in none
    some = first_page._sentences((model("the testbed", 0.05, "larger"), model("Gemma", 0.5)))
    assert "Some of the sets that CRANE's kurtosis selects are needed" in some
    everything = model("the testbed", 0.05, "larger")
    table = everything.tables["criteria_damage"]
    table["difference"] = table["criterion"].map({CRANE: 3.0, OTHER: 1.0, "LAPE": 4.0, RANDOM: 2.0})
    said = first_page._sentences((everything, everything))
    assert "selects are those that a language needs**" in said
    assert "**No other sum of the very same relevance finds them**" in said
    assert "finds them in every language**" in said


def test_the_figure_says_what_it_shows() -> None:
    shown = first_page._figure((model("the testbed", 0.05), model("Gemma", 0.5)), NAMES).data
    assert "the testbed, 8 neurons: LAPE +2.40" in shown and "data:image/png" in shown


def test_what_the_figure_shows_and_where_its_numbers_are() -> None:
    said = first_page._shown((model("the testbed", 0.05), model("Gemma", 0.5)))
    assert said.startswith("**Figure 0.**") and "8 on the testbed and 8 on Gemma" in said
    assert first_page._links(["a.csv", "b.csv"]) == (
        "Its numbers: {download}`a.csv <../results/a.csv>` and "
        "{download}`b.csv <../results/b.csv>`."
    )
    assert first_page._links([]) == ""


def test_a_run_without_the_results_says_so(tmp_path: Path) -> None:
    page = first_page.staged(f"before\n{MARK}\nafter", tmp_path, tmp_path, tmp_path)
    assert re.search(r"before\nThis book is of a run without notebooks 04, 04c, 09c, 10", page)
    assert page.endswith("after")


def test_the_first_page_has_the_mark() -> None:
    assert (ROOT / "book" / "intro.md").read_text("utf-8").count(MARK) == 1
