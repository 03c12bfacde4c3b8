"""The paper's printed tables as claims look at them (`claims.Scores`).

Scores are taken as they are printed; only whether a drop exceeds what the choice of items can do
is bounded from the printed numbers (`noise`). One random mask is printed for each language, of
Tables 1 and 2 alone: it can contradict a claim, and is too few to bear one out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from crane_core.metrics import Interval
from crane_lab.audit.claims import (
    FAILS,
    HOLDS,
    AmongRandom,
    ClaimVerdict,
    clearly,
    judge_claims,
    read_claims,
)
from crane_lab.audit.floors import even_damage
from crane_lab.audit.noise import CERTAIN, noise_table
from crane_lab.audit.tables import (
    LANGUAGES,
    Published,
    bold,
    bold_cells,
    definition,
    published,
    recompute,
)
from crane_lab.texts.languages import NAMES


def _point(value: float) -> Interval:
    return Interval(value, value, value, 1.0)


@dataclass(frozen=True)
class PrintedScores:
    """What the paper prints: its tables, and which of their cells are bold."""

    tables: Mapping[str, Published]
    bold: pd.DataFrame
    names: Mapping[str, str] = field(default_factory=lambda: {x: NAMES[x] for x in LANGUAGES})
    lape: str = "LAPE"

    @classmethod
    def of(cls, folder: str | Path = "data/published") -> PrintedScores:
        """The tables in a folder, as `data/published` holds them."""
        return cls(published(folder), bold_cells(folder))

    def lacks(self, number: str) -> str:
        """All four tables are printed."""
        return "" if number in self.tables else f"Table {number}"

    def f1(self, number: str, method: str, target: str) -> Interval:
        """A printed LangSpec-F1."""
        return _point(float(self.tables[number].row(method, target)["langspec_f1"]))

    def drop(self, number: str, method: str, target: str, of: Sequence[str]) -> Interval:
        """A printed drop, or the mean of several."""
        drops = self.tables[number].drop(method, target)
        return _point(round(sum(drops[x] for x in of) / len(of), 6))

    def versus(
        self, number: str, first: str, second: str, target: str, of: Sequence[str]
    ) -> Interval:
        """The difference of two printed drops."""
        one, other = (self.drop(number, method, target, of) for method in (first, second))
        return _point(round(one.estimate - other.estimate, 6))

    def random_f1(self, number: str, method: str, target: str) -> AmongRandom:
        """Against the one printed random mask's LangSpec-F1."""
        if "Random" not in self.tables[number].methods:
            return AmongRandom("open", False, "no random mask is printed")
        random = self.f1(number, "Random", target).estimate
        outcome = clearly(_point(self.f1(number, method, target).estimate - random))
        return AmongRandom(outcome, False, f"one random mask has {random:.4f}")

    def random_drop(self, number: str, method: str, target: str, of: Sequence[str]) -> AmongRandom:
        """Against the one printed random mask's drop."""
        if "Random" not in self.tables[number].methods:
            return AmongRandom("open", False, "no random mask is printed")
        random = self.drop(number, "Random", target, of)
        outcome = clearly(self.versus(number, method, "Random", target, of))
        return AmongRandom(outcome, False, f"one random mask takes {self.said(number, random)}")

    @cached_property
    def _noise(self) -> dict[tuple[str, ...], dict[Hashable, Any]]:
        keys = ("number", "method", "mask_language", "language")
        rows = noise_table(self.tables).to_dict("records")
        return {tuple(str(row[key]) for key in keys): row for row in rows}

    def noise(self, number: str, method: str, target: str, of: str) -> str:
        """ "more" or "less" if a printed drop is certain to exceed noise, else "open"."""
        row = self._noise[number, method, target, of]
        if row["verdict"] != CERTAIN:
            return "open"
        return "more" if row["drop"] > 0 else "less"

    def definition(self, number: str) -> pd.DataFrame:
        """§3.1's definition whatever rounding did, and LangSpec-F1 as it follows from the row."""
        one = {number: self.tables[number]}
        keys = ["table", "method", "mask_language"]
        found = definition(one).merge(recompute(one), on=keys)
        words = {"yes": "larger", "no": "smaller", "open": "open"}
        found = found.assign(relative=found["relative"].map(words), langspec_f1=found["recomputed"])
        return found[["method", "mask_language", "relative", "langspec_f1"]]

    def at_floor(self, number: str) -> Mapping[str, float]:
        """LangSpec-F1 of a mask that takes every language to guessing, or to the lowest grade."""
        table = self.tables[number]
        return {x: float(even_damage(table.original, table.floor, x, 1.0)[0]) for x in LANGUAGES}

    def hit_most(self) -> Mapping[str, set[str]]:
        """The languages that lose most, absolutely, in Table 1: it has one benchmark for each."""
        found = definition({"1": self.tables["1"]})
        own = found[(found["method"] == "CRANE") & (found["absolute"] == "yes")]
        return {
            "MMLU (English), C-Eval (Chinese), Belebele (Vietnamese)": set(own["mask_language"])
        }

    def budgets(self) -> pd.DataFrame | str:
        """No table prints how many neurons a mask has."""
        scores = self.tables["1"].scores.iloc[1:]
        if "n_neurons" not in scores:
            return "the number of neurons, which none of the four tables prints"
        return scores.pivot(index="method", columns="mask_language", values="n_neurons")

    def thresholds(self) -> pd.DataFrame | str:
        """No table has a mask at two thresholds."""
        rows = sum(len(table.scores) - 1 for table in self.tables.values())
        return (
            f"a mask at a second threshold or budget: the four tables have {rows} masks, each "
            "once, and the threshold in Figure 3 is 1 throughout"
        )

    def regions(self) -> pd.DataFrame | str:
        """Figure 3 is a picture."""
        return (
            "numbers: Figure 3 is printed as a picture, without the counts of its regions or what "
            "they would be if the languages had nothing to do with each other"
        )

    def said(self, number: str, value: Interval) -> str:
        """Points for accuracies, two decimals for grades."""
        if self.tables[number].judged:
            return f"{value.estimate:.2f}".replace("-", "−")
        return f"{100 * value.estimate:.2f} points".replace("-", "−")

    # -- what is printed alone ---------------------------------------------------------------------

    @property
    def checks(self) -> dict[str, Callable[[], ClaimVerdict]]:
        """The checks of `claims.PRINTED_ONLY`."""
        return {
            "vietnamese_example": self._vietnamese_example,
            "metric_is_relative": self._metric_is_relative,
            "bold_is_best": self._bold_is_best,
        }

    def _vietnamese_example(self) -> ClaimVerdict:
        table = self.tables["1"]
        scores = table.original["vi"], table.row("CRANE", "vi")["masked"]["vi"]
        checked = recompute({"1": table})
        row = checked[(checked["method"] == "CRANE") & (checked["mask_language"] == "vi")].iloc[0]
        text = (
            f"Table 1 has {scores[0]:.4f} and {scores[1]:.4f}; {row['recomputed']:.4f} follows, "
            f"with {row['low']:.4f} to {row['high']:.4f} allowed by rounding, and "
            f"{row['printed']:.4f} is printed."
        )
        same = scores == (0.3722, 0.2233) and row["printed"] == 0.4747
        return ClaimVerdict(HOLDS if same and row["verdict"] == "agrees" else FAILS, text)

    def _metric_is_relative(self) -> ClaimVerdict:
        agree = {
            key: recompute(self.tables, relative=key == "relative")["verdict"].eq("agrees").sum()
            for key in ("absolute", "relative")
        }
        total = sum(len(t.scores) - 1 for t in self.tables.values())
        text = (
            f"With absolute drops in Eq. 3, {agree['absolute']} of {total} printed values follow "
            f"from their rows, with relative ones {agree['relative']}."
        )
        return ClaimVerdict(HOLDS if agree["relative"] >= agree["absolute"] else FAILS, text)

    def _bold_is_best(self) -> ClaimVerdict:
        cells = bold(self.tables, self.bold)
        marked = cells[cells["bold"]]
        others = marked[marked["role"] == "other"]
        unmarked = cells[~cells["bold"] & cells["best"]]
        wrong = marked[~marked["best"]]
        named = ", ".join(
            f"{r['table']} {r['method']} {r['mask_language']} {r['column']} ({r['printed']:.4f})"
            for r in unmarked.to_dict("records")
        )
        text = (
            f"{len(marked)} cells are bold, all of them CRANE's. {len(others)} are scores of a "
            "language that the mask is not for, where a low score is damage that selectivity "
            f"forbids; {len(wrong)} are beaten by another method under the same mask. Best and not "
            f"bold: {named or 'none'}."
        )
        return ClaimVerdict(
            HOLDS if others.empty and unmarked.empty and wrong.empty else FAILS, text
        )


def claims_table(folder: str | Path = "data/published") -> pd.DataFrame:
    """Every claim with its verdict from the published tables.

    Columns: id, section, claim, tables (such as "1, 2"), criterion, verdict, evidence.
    """
    printed, claims = PrintedScores.of(folder), read_claims(folder)
    found = judge_claims(claims, printed, printed.checks)
    return pd.DataFrame(
        [
            {
                "id": claim.id,
                "section": claim.section,
                "claim": claim.claim,
                "tables": ", ".join(claim.tables),
                "criterion": claim.criterion,
                "verdict": found[claim.id].verdict,
                "evidence": found[claim.id].evidence,
            }
            for claim in claims
        ]
    )
