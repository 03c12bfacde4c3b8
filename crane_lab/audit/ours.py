"""A model's Tables 1 to 4 as claims look at them (`claims.Scores`): the testbed's, Gemma's.

LAPE stands for activation-based selection, at CRANE's own number of neurons. Intervals are over
items; where a claim is about random masks, the row is held against its null as well
(`crane_lab.stages.standing`), corrected over the masked languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crane_core import metrics
from crane_core.metrics import Interval
from crane_lab.audit.claims import AmongRandom, clearly
from crane_lab.audit.floors import even_damage
from crane_lab.stages.comparisons import Nulls, hit_most
from crane_lab.stages.outcomes import Scored
from crane_lab.stages.standing import ENOUGH, FDR, held_against

Array = NDArray[np.float64]
#: The tables of grades; the others are of accuracies among four options.
GRADED = ("2", "4")


@dataclass(frozen=True)
class Ours:
    """Our outcomes: `{"1": …, "2": …, "3": …, "4": …}` as in the paper, 3 and 4 the chat model's.

    Without a chat model there are no 3 and 4.
    `tables` are what `Scored.table` makes of them, `verdicts` what `comparisons.verdicts` does,
    `parallel` those of the same task in every language (name of the task -> verdicts), `names`
    language -> name. `nulls` are scores under random masks, by number, and `tasks` the task of
    each language there; `swept` has the masks at other thresholds, and `separated` the regions of
    Figure 3, each as `claims.Scores` wants it, or None.
    """

    scored: Mapping[str, Scored]
    tables: Mapping[str, pd.DataFrame]
    verdicts: Mapping[str, pd.DataFrame]
    parallel: Mapping[str, pd.DataFrame]
    names: Mapping[str, str]
    nulls: Mapping[str, Nulls] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    swept: pd.DataFrame | None = None
    separated: pd.DataFrame | None = None
    lape: str = "LAPE matched"

    def lacks(self, number: str) -> str:
        """Tables 3 and 4 are a chat model's."""
        return "" if number in self.scored else "a chat model, for Tables 3 and 4"

    def _row(self, found: pd.DataFrame, method: str, target: str) -> pd.Series:
        own = (found["method"] == method) & (found["mask_language"] == target)
        return found[own].iloc[0]

    def f1(self, number: str, method: str, target: str) -> Interval:
        """LangSpec-F1 of a row with its interval."""
        row = self._row(self.tables[number], method, target)
        value, low, high = (float(row[f"langspec_f1{end}"]) for end in ("", "_low", "_high"))
        return Interval(value, low, high, 0.95)

    def _after(self, number: str, method: str, target: str) -> Mapping[str, Array]:
        scored = self.scored[number]
        for row, after in zip(scored.rows, scored.after, strict=True):
            if (row.method, row.language) == (method, target):
                return after
        raise KeyError(f"Table {number} has no row {method}, {target}")

    def _difference(
        self,
        number: str,
        before: Mapping[str, Array],
        after: Mapping[str, Array],
        of: Sequence[str],
    ) -> Interval:
        clusters = self.scored[number].clusters
        parts = [metrics.drop_interval(before[x], after[x], clusters=clusters[x]) for x in of]
        # Independent languages: half-widths add in squares.
        mean = float(np.mean([part.estimate for part in parts]))
        below, above = (
            float(np.sqrt(np.sum(np.square(widths)))) / len(parts)
            for widths in (
                [part.estimate - part.low for part in parts],
                [part.high - part.estimate for part in parts],
            )
        )
        return Interval(mean, mean - below, mean + above, 0.95)

    def drop(self, number: str, method: str, target: str, of: Sequence[str]) -> Interval:
        """Drop under a row's mask, averaged over some languages, paired over items."""
        before = self.scored[number].before
        return self._difference(number, before, self._after(number, method, target), of)

    def versus(
        self, number: str, first: str, second: str, target: str, of: Sequence[str]
    ) -> Interval:
        """What the first mask takes more than the second, from the same items under both."""
        other, own = (self._after(number, method, target) for method in (second, first))
        return self._difference(number, other, own, of)

    def random_f1(self, number: str, method: str, target: str) -> AmongRandom:
        """LangSpec-F1 of a row in its null."""
        row = self._row(self.verdicts[number], method, target)
        return _among(row, "langspec_f1_", "{:.3f}".format)

    def random_drop(self, number: str, method: str, target: str, of: Sequence[str]) -> AmongRandom:
        """A drop in its null, corrected over the drops of its kind."""
        if list(of) == [target]:
            family = [(x, [x]) for x in self.names]
        elif len(of) == len(self.names) - 1:
            family = [(x, self._others(x)) for x in self.names]
        else:
            family = [(x, [y]) for x in self.names for y in self._others(x)]
        values, nulls = [], []
        start = self.tables[number].iloc[0]
        for x, wanted in family:
            masks = self.nulls.get(number, {}).get((method, x), pd.DataFrame())
            values.append(self.drop(number, method, x, wanted).estimate)
            drops = [
                float(start[y]) - masks[self.tasks[number][y]].to_numpy(float)
                for y in wanted
                if len(masks)
            ]
            nulls.append(np.mean(drops, axis=0) if drops else np.array([]))
        row = held_against(values, nulls).iloc[family.index((target, list(of)))]
        return _among(row, "", lambda value: self._amount(number, value))

    def _others(self, target: str) -> list[str]:
        return [x for x in self.names if x != target]

    def noise(self, number: str, method: str, target: str, of: str) -> str:
        """Whether a drop's interval excludes zero."""
        return clearly(self.drop(number, method, target, [of]))

    def definition(self, number: str) -> pd.DataFrame:
        """§3.1's definition by the intervals and the null."""
        return self.verdicts[number][["method", "mask_language", "relative", "langspec_f1"]]

    def at_floor(self, number: str) -> Mapping[str, float]:
        """LangSpec-F1 of a mask that takes every language to guessing, or to the lowest grade."""
        row = self.tables[number].iloc[0]
        start = {x: float(row[x]) for x in self.names}
        floor = dict.fromkeys(start, 1.0 if number in GRADED else 0.25)
        return {x: float(even_damage(start, floor, x, 1.0)[0]) for x in start}

    def hit_most(self) -> Mapping[str, set[str]]:
        """The languages that CRANE's masks cost most in Table 1 and in the parallel tables."""
        found = {"the paper-shaped table": self.verdicts["1"], **self.parallel}
        return {kind: hit_most(own) for kind, own in found.items()}

    def budgets(self) -> pd.DataFrame | str:
        """Neurons by method and masked language."""
        rows = self.tables["1"].iloc[1:]
        found = rows.pivot(index="method", columns="mask_language", values="n_neurons")
        return found[list(self.names)]

    def thresholds(self) -> pd.DataFrame | str:
        """The sweep over thresholds, if it was made with this model and these texts."""
        return "masks at other thresholds on this model" if self.swept is None else self.swept

    def regions(self) -> pd.DataFrame | str:
        """Figure 3's regions in numbers."""
        return "the counts of Figure 3's regions" if self.separated is None else self.separated

    def _amount(self, number: str, value: float) -> str:
        return f"{value:.2f}" if number in GRADED else f"{100 * value:.1f} points"

    def said(self, number: str, value: Interval) -> str:
        """Points for accuracies, two decimals for grades, with the interval."""
        if number in GRADED:
            text = f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"
        else:
            ends = f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
            text = f"{100 * value.estimate:.1f} points {ends}"
        return text.replace("-", "−")


def _among(row: pd.Series, key: str, amount: Callable[[float], str]) -> AmongRandom:
    """What a row of `standing.held_against`, its names after `key`, says in words."""
    names = ("null_masks", "null_mean", "percentile", "q", "q_low")
    masks, mean, percentile, q, q_low = (float(row.get(f"{key}{name}", np.nan)) for name in names)
    if not masks > 0:
        return AmongRandom("open", False, "no random mask of its size and layers was measured")
    outcome = "more" if q <= FDR else "less" if q_low <= FDR else "open"
    said = (
        f"{masks:,.0f} random masks {amount(mean)} on average (CRANE at percentile "
        f"{percentile:.0f}, p = {q_low if outcome == 'less' else q:.3f})"
    )
    return AmongRandom(outcome, masks >= ENOUGH, said.replace("-", "−"))
