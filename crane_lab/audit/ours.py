"""The paper's claims against our own tables: the other half of the verdicts page.

The same claims as in `claims.yaml`, by the same criteria, but with intervals: "holds" and "does
not" need a comparison whose intervals do not overlap, everything between is "cannot tell". LAPE
stands for activation-based selection, at CRANE's own number of neurons. For random masks the
"interval" is the range over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crane_core import metrics
from crane_core.metrics import Interval
from crane_lab.audit.claims import FAILS, HOLDS, UNKNOWN, ClaimVerdict
from crane_lab.stages.comparisons import hit_most
from crane_lab.stages.outcomes import Scored

#: What a claim about the printed tables themselves gets: there is nothing to test elsewhere.
NOT_TESTED = "–"
BASELINES = ("LAPE matched", "Random")


@dataclass(frozen=True)
class Ours:
    """Our outcomes: `{"1": …, "2": …, "3": …, "4": …}` as in the paper, 3 and 4 the chat model's.

    Without a chat model there are no 3 and 4.
    `tables` are what `Scored.table` makes of them, `verdicts` what `comparisons.verdicts` does,
    `parallel` those of the same task in every language (name of the task -> verdicts), `names`
    language -> name.
    """

    scored: Mapping[str, Scored]
    tables: Mapping[str, pd.DataFrame]
    verdicts: Mapping[str, pd.DataFrame]
    parallel: Mapping[str, pd.DataFrame]
    names: Mapping[str, str]

    @property
    def languages(self) -> list[str]:
        """The masked languages."""
        return list(self.names)

    def f1(self, number: str, method: str, target: str) -> Interval:
        """LangSpec-F1 of a row with its interval."""
        table = self.tables[number]
        row = table[(table["method"] == method) & (table["mask_language"] == target)].iloc[0]
        value, low, high = (float(row[f"langspec_f1{end}"]) for end in ("", "_low", "_high"))
        return Interval(value, low, high, 0.95)

    def drop(self, number: str, method: str, target: str, languages: Sequence[str]) -> Interval:
        """Drop under a row's mask, averaged over some languages, with its interval."""
        scored = self.scored[number]
        found = [
            after
            for row, after in zip(scored.rows, scored.after, strict=True)
            if (row.method, row.language) == (method, target)
        ]
        if len(found) > 1:
            drops = [
                np.mean([scored.before[x].mean() - after[x].mean() for x in languages])
                for after in found
            ]
            return Interval(float(np.mean(drops)), float(min(drops)), float(max(drops)), 1.0)
        parts = [
            metrics.drop_interval(scored.before[x], found[0][x], clusters=scored.clusters[x])
            for x in languages
        ]
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

    def others(self, target: str) -> list[str]:
        """The languages that a mask is not made for."""
        return [x for x in self.languages if x != target]


def _against(a: Interval, others: Iterable[Interval]) -> str:
    """ "more" if `a` lies above every other interval, "less" if below one, else "open"."""
    found = list(others)
    if any(a.high < b.low for b in found):
        return "less"
    return "more" if all(a.low > b.high for b in found) else "open"


def _verdict(outcomes: Sequence[str], wanted: str = "more") -> str:
    """All as wanted: holds; one the other way round: does not; else cannot tell."""
    opposite = {"more": "less", "less": "more", "larger": "smaller"}[wanted]
    if any(outcome == opposite for outcome in outcomes):
        return FAILS
    return HOLDS if all(outcome == wanted for outcome in outcomes) else UNKNOWN


def _said(interval: Interval, digits: int = 3) -> str:
    text = f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return text.replace("-", "−")


def _count(outcomes: Sequence[str], wanted: str) -> str:
    return f"{sum(outcome == wanted for outcome in outcomes)} of {len(outcomes)}"


def _f1_everywhere(
    ours: Ours, numbers: Sequence[str], baselines: Sequence[str] = BASELINES
) -> tuple[list[str], str]:
    outcomes, worst = [], ""
    for number in numbers:
        for x in ours.languages:
            crane = ours.f1(number, "CRANE", x)
            found = {b: ours.f1(number, b, x) for b in baselines}
            outcomes.append(_against(crane, found.values()))
            if outcomes[-1] == "less" and not worst:
                best = max(found, key=lambda b: found[b].estimate)
                worst = (
                    f" For instance Table {number}, {ours.names[x]}: CRANE {_said(crane)}, "
                    f"{best} {_said(found[best])}."
                )
    return outcomes, worst


def _drops(
    ours: Ours, number: str, baselines: Sequence[str], own: bool = True
) -> tuple[list[str], str]:
    """CRANE's drops against others', of the masked language (`own`) or the mean of the others."""
    outcomes, texts = [], []
    digits = 2 if number in "24" else 3
    for x in ours.languages:
        languages = [x] if own else ours.others(x)
        crane = ours.drop(number, "CRANE", x, languages)
        found = {b: ours.drop(number, b, x, languages) for b in baselines}
        outcomes.append(_against(crane, found.values()))
        texts.append(
            f"{ours.names[x]} {_said(crane, digits)} against "
            + ", ".join(f"{_said(value, digits)} ({b})" for b, value in found.items())
        )
    return outcomes, "; ".join(texts) + "."


def _highest_everywhere(ours: Ours) -> ClaimVerdict:
    outcomes, worst = _f1_everywhere(ours, list(ours.scored))
    text = (
        f"CRANE's LangSpec-F1 lies clearly above LAPE's and random masks' in "
        f"{_count(outcomes, 'more')} cases and clearly below one of them in "
        f"{_count(outcomes, 'less')}.{worst}"
    )
    return ClaimVerdict(_verdict(outcomes), text)


def _larger_target_drop(
    ours: Ours, number: str = "1", who: Sequence[str] = BASELINES
) -> ClaimVerdict:
    outcomes, text = _drops(ours, number, who)
    return ClaimVerdict(_verdict(outcomes), f"Drop of the masked language under CRANE: {text}")


def _non_target_preserved(ours: Ours) -> ClaimVerdict:
    harmed, more = [], []
    for x in ours.languages:
        for y in ours.others(x):
            drop = ours.drop("1", "CRANE", x, [y])
            if drop.low > 0:
                harmed.append(f"{ours.names[y]} {_said(drop)} under the {ours.names[x]} mask")
            more.append(_against(drop, [ours.drop("1", "Random", x, [y])]))
    text = (
        f"{len(harmed)} of {len(more)} drops of other languages are clearly above zero"
        + (f" ({'; '.join(harmed)})" if harmed else "")
        + f"; {_count(more, 'more')} lie above the range of random masks."
    )
    return ClaimVerdict(FAILS if harmed or "more" in more else HOLDS, text)


def _smaller_side_effects(ours: Ours) -> ClaimVerdict:
    outcomes, text = _drops(ours, "1", BASELINES, own=False)
    return ClaimVerdict(
        HOLDS
        if all(outcome == "less" for outcome in outcomes)
        else FAILS
        if "more" in outcomes
        else UNKNOWN,
        f"Mean drop of the other languages under CRANE: {text}",
    )


def _lape_near_zero(ours: Ours) -> ClaimVerdict:
    f1 = [ours.f1("1", "LAPE", x) for x in ours.languages]
    matched = [ours.f1("1", "LAPE matched", x) for x in ours.languages]
    text = (
        f"LangSpec-F1 as released: {', '.join(_said(value) for value in f1)}. (At CRANE's number "
        f"of neurons: {', '.join(_said(value) for value in matched)}.)"
    )
    above = [value.low > 0.05 for value in f1]
    below = [value.high < 0.05 for value in f1]
    return ClaimVerdict(FAILS if any(above) else HOLDS if all(below) else UNKNOWN, text)


def _definition_met(ours: Ours) -> ClaimVerdict:
    outcomes = [
        outcome
        for found in ours.verdicts.values()
        for outcome in found.loc[found["method"] == "CRANE", "relative"]
    ]
    lape = [
        outcome
        for found in ours.verdicts.values()
        for outcome in found.loc[found["method"] == "LAPE matched", "relative"]
    ]
    text = (
        f"The masked language loses clearly most, relatively, under {_count(outcomes, 'larger')} "
        f"CRANE masks, and clearly less than another under {_count(outcomes, 'smaller')}. For LAPE "
        f"at equal budgets: {_count(lape, 'larger')} and {_count(lape, 'smaller')}."
    )
    return ClaimVerdict(_verdict(outcomes, "larger"), text)


def _matched_budgets(ours: Ours) -> ClaimVerdict:
    table = ours.tables["1"].set_index(["method", "mask_language"])["n_neurons"]
    counts = {
        m: [int(table[m, x]) for x in ours.languages]
        for m in ("CRANE", "LAPE matched", "Random", "LAPE")
    }
    same = counts["CRANE"] == counts["LAPE matched"] == counts["Random"]
    text = "Ours are equal by construction: " + "; ".join(
        f"{m} {', '.join(map(str, n))}" for m, n in counts.items() if m != "LAPE"
    )
    text += f". LAPE as released masks {', '.join(map(str, counts['LAPE']))}."
    return ClaimVerdict(HOLDS if same else FAILS, text)


def _language_not_task(ours: Ours) -> ClaimVerdict:
    found = {
        kind: hit_most(found)
        for kind, found in {"paper-shaped": ours.verdicts["1"], **ours.parallel}.items()
    }
    first, *rest = found.values()
    text = "CRANE's masks cost their own language clearly most: " + "; ".join(
        f"{kind} table {', '.join(ours.names[x] for x in ours.languages if x in own) or 'none'}"
        for kind, own in found.items()
    )
    if not first:
        return ClaimVerdict(UNKNOWN, text + ". There is no effect that could be one or the other.")
    return ClaimVerdict(HOLDS if all(first <= own for own in rest) else FAILS, text + ".")


def _chat_vietnamese(ours: Ours) -> ClaimVerdict:
    outcomes, _ = _f1_everywhere(ours, ["3"], ["LAPE matched"])
    text = "; ".join(
        f"{ours.names[x]} {_said(ours.f1('3', 'CRANE', x))}, LAPE "
        f"{_said(ours.f1('3', 'LAPE matched', x))}"
        for x in ours.languages
    )
    more, less = outcomes.count("more"), outcomes.count("less")
    verdict = HOLDS if more >= 2 else FAILS if less >= 2 else UNKNOWN
    return ClaimVerdict(verdict, f"LangSpec-F1 on the chat model: {text}.")


def _transfer_retained(ours: Ours) -> ClaimVerdict:
    outcomes, texts = [], []
    for number, kind in (("3", "benchmarks"), ("4", "open-ended")):
        found, text = _drops(ours, number, ["Random"])
        outcomes += found
        texts.append(f"{kind}: {text}")
    more = outcomes.count("more")
    verdict = HOLDS if more == len(outcomes) else UNKNOWN if more else _verdict(outcomes)
    return ClaimVerdict(
        verdict,
        f"Drop of the masked language on the chat model, above random masks in "
        f"{_count(outcomes, 'more')} cases. {' '.join(texts)}",
    )


def _stronger_than_activation(ours: Ours) -> ClaimVerdict:
    f1, worst = _f1_everywhere(ours, list(ours.scored), ["LAPE matched"])
    drops = [o for number in ours.scored for o in _drops(ours, number, ["LAPE matched"])[0]]
    text = (
        f"Against LAPE at equal budgets CRANE's LangSpec-F1 is clearly higher in "
        f"{_count(f1, 'more')} cases and clearly lower in {_count(f1, 'less')}; the drop of the "
        f"masked language in {_count(drops, 'more')} and {_count(drops, 'less')}.{worst}"
    )
    return ClaimVerdict(_verdict([*f1, *drops]), text)


def _metric_is_selective(ours: Ours) -> ClaimVerdict:
    rows = pd.concat(
        [found.assign(table=number) for number, found in ours.verdicts.items()], ignore_index=True
    )
    rows = rows[rows["method"] != "Random"]
    fails, meets = (rows[rows["relative"] == which] for which in ("smaller", "larger"))
    if not len(fails) or not len(meets):
        return ClaimVerdict(
            UNKNOWN, "No row clearly fails the definition, or none clearly meets it."
        )
    worst, best = fails["langspec_f1"].max(), meets["langspec_f1"].min()
    text = (
        f"Rows that clearly meet the definition of §3.1 score {best:.3f} or more, rows that "
        f"clearly fail it {worst:.3f} or less."
    )
    return ClaimVerdict(HOLDS if worst < best else FAILS, text)


def threshold_robust(swept: pd.DataFrame, names: Mapping[str, str]) -> ClaimVerdict:
    """Whether CRANE's masks have the same outcome at every threshold, for each language.

    `swept`: one row per threshold and masked language, as in `choices.csv`; its `verdict` says
    whether the mask hit its own language's held-out loss more than any other's ("larger"), less
    than some other's ("smaller"), or neither clearly ("open").
    """
    told, same, opposite = [], True, False
    for x, own in swept.groupby("mask_language", sort=False):
        found = own["verdict"].value_counts()
        same &= len(found) == 1
        opposite |= {"larger", "smaller"} <= set(found.index)
        told.append(
            f"{names.get(str(x), str(x))}: hit most at {found.get('larger', 0)} thresholds, less "
            f"than another language at {found.get('smaller', 0)}, open at {found.get('open', 0)}, "
            f"with {own['n_neurons'].min()} to {own['n_neurons'].max()} neurons and LangSpec-F1 "
            f"{own['langspec_f1'].min():.3f} to {own['langspec_f1'].max():.3f}"
        )
    thresholds = pd.to_numeric(swept["value"])
    text = (
        f"{thresholds.nunique()} thresholds from {thresholds.min():g} to {thresholds.max():g} "
        f"(notebook 08). {'; '.join(told)}."
    )
    return ClaimVerdict(FAILS if opposite else HOLDS if same else UNKNOWN, text)


def _printed_only(ours: Ours) -> ClaimVerdict:
    return ClaimVerdict(NOT_TESTED, "About the paper's printed numbers alone.")


CHECKS: dict[str, Callable[[Ours], ClaimVerdict]] = {
    "highest-everywhere": _highest_everywhere,
    "larger-target-drop": _larger_target_drop,
    "non-target-preserved": _non_target_preserved,
    "smaller-side-effects": _smaller_side_effects,
    "lape-near-zero": _lape_near_zero,
    "vietnamese-example": _printed_only,
    "definition-met": _definition_met,
    "matched-budgets": _matched_budgets,
    "language-not-task": _language_not_task,
    "open-ended-base": lambda ours: _larger_target_drop(ours, "2", ["LAPE matched"]),
    "chat-nlu-target": lambda ours: _larger_target_drop(ours, "3", ["LAPE matched"]),
    "chat-vietnamese": _chat_vietnamese,
    "open-ended-chat": lambda ours: _larger_target_drop(ours, "4", ["LAPE matched"]),
    "transfer-retained": _transfer_retained,
    "stronger-than-activation": _stronger_than_activation,
    "metric-is-selective": _metric_is_selective,
    "metric-is-relative": _printed_only,
    "bold-is-best": _printed_only,
}


#: Tables of the chat model, which claims need that are about it.
NEEDS = dict.fromkeys(
    ("chat-nlu-target", "chat-vietnamese", "open-ended-chat", "transfer-retained"), ("3", "4")
)


def in_our_tables(
    ours: Ours, more: Mapping[str, ClaimVerdict] | None = None
) -> dict[str, ClaimVerdict]:
    """A verdict by claim id, from our tables; `more` adds or replaces some from elsewhere."""
    lacking = ClaimVerdict(UNKNOWN, "There is no chat model here, so no Tables 3 and 4.")
    return {
        name: check(ours) if {*NEEDS.get(name, ())} <= ours.scored.keys() else lacking
        for name, check in CHECKS.items()
    } | dict(more or {})
