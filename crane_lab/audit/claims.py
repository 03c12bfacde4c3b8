"""The paper's claims, each with one criterion that is applied to every column alike.

The claims are listed in `data/published/claims.yaml`, in our words, each with the criterion by
which it is judged. A check here takes `Scores`, the paper's printed tables (`audit.printed`) or a
model's (`audit.ours`), and gives a verdict with the numbers behind it. What a column lacks for a
verdict is named, and the verdict is then "cannot tell", unless what there is contradicts the claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml

from crane_core.metrics import Interval

HOLDS, FAILS, UNKNOWN = "holds", "does not", "cannot tell"
#: What a claim about the printed tables themselves gets elsewhere: there is nothing to test.
NOT_TESTED = "–"
#: Neurons in LAPE's released sets for Llama-2-7B, of 352,256.
LAPE_RELEASED = {"en": 95, "zh": 583, "vi": 836}
#: The largest LangSpec-F1 that counts as near zero.
NEAR_ZERO = 0.05
#: A drop in accuracy that may be this large is not known to be absent, though none is seen.
PRESERVED = 0.05


@dataclass(frozen=True)
class Claim:
    """One claim as `claims.yaml` lists it; `tables` are numbers, `check` a name in `CHECKS`."""

    id: str
    section: str
    claim: str
    tables: tuple[str, ...]
    criterion: str
    check: str


@dataclass(frozen=True)
class ClaimVerdict:
    """What a check found: a verdict, and the numbers in a sentence."""

    verdict: str
    evidence: str


@dataclass(frozen=True)
class AmongRandom:
    """Where a row stands among random masks of its size: "more" than they do, "less" or "open".

    `known` is False where too few random masks are there to say so; `outcome` is then what those
    that are there say, which can contradict a claim but not bear it out.
    """

    outcome: str
    known: bool
    said: str


class Scores(Protocol):
    """What a column of the verdicts has: scores without a mask and under each method's masks.

    Intervals are those of the items; of printed numbers, which are taken as they are, points.
    """

    @property
    def names(self) -> Mapping[str, str]:
        """Masked language -> its name."""

    @property
    def lape(self) -> str:
        """LAPE's row with as many neurons as CRANE's, or what the paper says is that."""

    def lacks(self, number: str) -> str:
        """Why there is no table of this number; "" if there is."""

    def f1(self, number: str, method: str, target: str) -> Interval:
        """LangSpec-F1 of a row."""

    def drop(self, number: str, method: str, target: str, of: Sequence[str]) -> Interval:
        """The drop under a row's mask, averaged over the languages `of`."""

    def versus(
        self, number: str, first: str, second: str, target: str, of: Sequence[str]
    ) -> Interval:
        """The drop under the first method's mask less that under the second's."""

    def random_f1(self, number: str, method: str, target: str) -> AmongRandom:
        """Where LangSpec-F1 of a row stands among random masks."""

    def random_drop(self, number: str, method: str, target: str, of: Sequence[str]) -> AmongRandom:
        """Where the drop of a row stands among random masks."""

    def noise(self, number: str, method: str, target: str, of: str) -> str:
        """Whether a language's drop is "more" than the choice of items can do, "less", "open"."""

    def definition(self, number: str) -> pd.DataFrame:
        """Rows of a table: `method`, `mask_language`, `relative` ("larger", …), `langspec_f1`."""

    def at_floor(self, number: str) -> Mapping[str, float]:
        """LangSpec-F1 of a mask that takes every language to its floor, by target."""

    def hit_most(self) -> Mapping[str, set[str]]:
        """Table -> languages that CRANE's mask costs most, Table 1's first, then parallel ones."""

    def budgets(self) -> pd.DataFrame | str:
        """Neurons by method (rows) and masked language, or why they are not known."""

    def thresholds(self) -> pd.DataFrame | str:
        """Outcomes by `value` of the threshold and `mask_language`, or why there are none."""

    def regions(self) -> pd.DataFrame | str:
        """`target`, `selected`, `unrelated` and `outcome` of Figure 3's regions, or why not."""

    def said(self, number: str, value: Interval) -> str:
        """A score or drop of a table in words."""


def read_claims(
    folder: str | Path = "data/published",
    checks: Iterable[str] | None = None,
    tables: str = "1234",
) -> list[Claim]:
    """The claims in `claims.yaml`, checked: known tables, known checks, no id twice.

    `checks` are the names that a paper's claims may have, by default the CRANE paper's, and
    `tables` the numbers of its tables.

    Raises ValueError for a claim that is not as it should be.
    """
    known = [*CHECKS, *PRINTED_ONLY] if checks is None else list(checks)
    found = []
    for entry in yaml.safe_load((Path(folder) / "claims.yaml").read_text(encoding="utf-8")):
        text = {key: " ".join(str(entry[key]).split()) for key in ("claim", "criterion")}
        found.append(
            Claim(
                entry["id"], str(entry["section"]), text["claim"], tuple(entry["tables"]),
                text["criterion"], entry["check"],
            )
        )  # fmt: skip
        if entry["check"] not in known:
            raise ValueError(f"claim {entry['id']}: no check {entry['check']!r}: {known}")
        if not set(entry["tables"]) <= set(tables):
            raise ValueError(f"claim {entry['id']}: unknown tables {entry['tables']}")
    ids = [claim.id for claim in found]
    if len(set(ids)) != len(ids):
        raise ValueError("claims.yaml has an id twice")
    return found


def judge_claims(
    claims: Iterable[Claim],
    scores: Scores,
    printed: Mapping[str, Callable[[], ClaimVerdict]] | None = None,
) -> dict[str, ClaimVerdict]:
    """Every claim's verdict by its id; `printed` has the checks of what is printed, if it is."""
    found = {}
    for claim in claims:
        needed = claim.tables if claim.check in NEEDS_TABLES else ()
        missing = [why for number in needed if (why := scores.lacks(number))]
        if claim.check in PRINTED_ONLY:
            found[claim.id] = (
                printed[claim.check]()
                if printed
                else ClaimVerdict(NOT_TESTED, "About the paper's printed numbers alone.")
            )
        elif missing:
            found[claim.id] = ClaimVerdict(UNKNOWN, f"Lacking: {missing[0]}.")
        else:
            found[claim.id] = CHECKS[claim.check](scores)
    return found


# --- outcomes -------------------------------------------------------------------------------------


def clearly(difference: Interval) -> str:
    """ "more" if a difference lies above zero with its interval, "less" if below, else "open"."""
    if difference.low > 0:
        return "more"
    return "less" if difference.high < 0 else "open"


def against(first: Interval, second: Interval) -> str:
    """ "more" if the first lies above the second with its interval, "less" if below, or "open"."""
    if first.low > second.high:
        return "more"
    return "less" if first.high < second.low else "open"


_OPPOSITE = {"more": "less", "less": "more", "larger": "smaller"}


def verdict_of(outcomes: Sequence[str], wanted: str = "more", least: int | None = None) -> str:
    """Holds if at least so many outcomes (or all) are as wanted; does not if they cannot be.

    An outcome other than the wanted one and its opposite could be either.
    """
    least = len(outcomes) if least is None else least
    if outcomes and outcomes.count(wanted) >= least:
        return HOLDS
    if len(outcomes) - outcomes.count(_OPPOSITE[wanted]) < least:
        return FAILS
    return UNKNOWN


def _both(first: str, second: AmongRandom, wanted: str = "more") -> str:
    """One outcome of a comparison with a method and with random masks: as wanted in both."""
    opposite = _OPPOSITE[wanted]
    if opposite in (first, second.outcome):
        return opposite
    return wanted if first == second.outcome == wanted and second.known else "open"


def _few(found: Iterable[AmongRandom]) -> str:
    """What is lacking where random masks are too few."""
    return (
        ""
        if all(one.known for one in found)
        else " Lacking: enough random masks to know what others of the kind do."
    )


def _count(outcomes: Sequence[str], wanted: str) -> str:
    return f"{outcomes.count(wanted)} of {len(outcomes)}"


def _others(scores: Scores, target: str) -> list[str]:
    return [x for x in scores.names if x != target]


def _and(*verdicts: str) -> str:
    if FAILS in verdicts:
        return FAILS
    return HOLDS if set(verdicts) == {HOLDS} else UNKNOWN


# --- checks ---------------------------------------------------------------------------------------


def _highest_f1(scores: Scores) -> ClaimVerdict:
    outcomes, random, shown = [], [], []
    for x, name in scores.names.items():
        crane, lape = (scores.f1("1", method, x) for method in ("CRANE", scores.lape))
        random.append(scores.random_f1("1", "CRANE", x))
        outcomes.append(_both(against(crane, lape), random[-1]))
        shown.append(f"{name} {_f1(crane)} against {_f1(lape)} ({scores.lape}); {random[-1].said}")
    text = (
        f"CRANE's LangSpec-F1 is clearly higher than both in {_count(outcomes, 'more')} cases, and "
        f"lower than one of them in {_count(outcomes, 'less')}. {'. '.join(shown)}.{_few(random)}"
    )
    return ClaimVerdict(verdict_of(outcomes), text)


def _larger_target_drop(scores: Scores) -> ClaimVerdict:
    outcomes, random, shown = [], [], []
    for x, name in scores.names.items():
        random.append(scores.random_drop("1", "CRANE", x, [x]))
        outcomes.append(
            _both(clearly(scores.versus("1", "CRANE", scores.lape, x, [x])), random[-1])
        )
        shown.append(f"{name} {_drops(scores, '1', x, [x])}; {random[-1].said}")
    text = f"Drops of the masked language: {'. '.join(shown)}.{_few(random)}"
    return ClaimVerdict(verdict_of(outcomes), text)


def _smaller_side_effects(scores: Scores) -> ClaimVerdict:
    outcomes, random, shown = [], [], []
    for x, name in scores.names.items():
        others = _others(scores, x)
        random.append(scores.random_drop("1", "CRANE", x, others))
        outcome = clearly(scores.versus("1", "CRANE", scores.lape, x, others))
        outcomes.append(_both(outcome, random[-1], "less"))
        shown.append(f"{name} {_drops(scores, '1', x, others)}; {random[-1].said}")
    text = f"Mean drop of the other languages, by mask: {'. '.join(shown)}.{_few(random)}"
    return ClaimVerdict(verdict_of(outcomes, "less"), text)


def _non_target_preserved(scores: Scores) -> ClaimVerdict:
    certain, above, random, total, most = [], 0, [], 0, 0.0
    for x, name in scores.names.items():
        for y in _others(scores, x):
            total += 1
            drop = scores.drop("1", "CRANE", x, [y])
            most = max(most, drop.high)
            random.append(scores.random_drop("1", "CRANE", x, [y]))
            above += random[-1].outcome == "more" and random[-1].known
            if scores.noise("1", "CRANE", x, y) == "more":
                certain.append(
                    f"{scores.names[y]} {scores.said('1', drop)} under the mask for {name}"
                )
    text = (
        f"{len(certain)} of {total} drops of other languages are certain to exceed what the choice "
        f"of items can do{_listed(certain)}; {above} lie above what random masks do. The largest "
        f"that cannot be excluded is {100 * most:.1f} points.{_few(random)}"
    )
    known = all(one.known for one in random)
    verdict = FAILS if certain or above else HOLDS if known and most < PRESERVED else UNKNOWN
    return ClaimVerdict(verdict, text)


def _lape_near_zero(scores: Scores) -> ClaimVerdict:
    found = [scores.f1("1", "LAPE", x) for x in scores.names]
    noise = [scores.noise("1", "LAPE", x, y) for x in scores.names for y in scores.names]
    certain = len(noise) - noise.count("open")
    text = (
        f"LangSpec-F1 is {', '.join(_f1(value) for value in found)}; {certain} of {len(noise)} "
        "changes of a language are certain to exceed what the choice of items can do."
    )
    outcomes = [against(Interval(NEAR_ZERO, NEAR_ZERO, NEAR_ZERO, 1.0), value) for value in found]
    return ClaimVerdict(FAILS if certain else verdict_of(outcomes), text)


def _definition_met(scores: Scores) -> ClaimVerdict:
    tables = [scores.definition(n).assign(table=f"Table {n}") for n in _there(scores)]
    found = pd.concat(tables, ignore_index=True)
    own = found[found["method"] == "CRANE"]
    outcomes = own["relative"].to_list()
    missed = [
        f"{row['table']}, {scores.names[row['mask_language']]}"
        for row in own[own["relative"] == "smaller"].to_dict("records")
    ]
    lape = found.loc[found["method"] == scores.lape, "relative"].to_list()
    text = (
        f"The masked language loses most, relatively, under {_count(outcomes, 'larger')} CRANE "
        f"masks, and less than another under {_count(outcomes, 'smaller')}{_listed(missed)}. For "
        f"{scores.lape}: {_count(lape, 'larger')} and {_count(lape, 'smaller')}."
        f"{_no_tables(scores)}"
    )
    return ClaimVerdict(verdict_of(outcomes, "larger"), text)


def _matched_budgets(scores: Scores) -> ClaimVerdict:
    counts = ", ".join(f"{n} for {x}" for x, n in LAPE_RELEASED.items())
    found = scores.budgets()
    if isinstance(found, str):
        return ClaimVerdict(
            UNKNOWN,
            f"Lacking: {found}. (LAPE's released sets for Llama-2-7B are of unequal size, "
            f"{counts}, so that one budget for all needs other sets than those, or a budget for "
            "each language.)",
        )
    equal = bool((found.loc[["CRANE", scores.lape, "Random"]].nunique() == 1).all())
    text = "; ".join(
        f"{method} {', '.join(str(n) for n in row)}" for method, row in found.iterrows()
    )
    return ClaimVerdict(HOLDS if equal else FAILS, f"Neurons masked: {text}.")


def _threshold_robust(scores: Scores) -> ClaimVerdict:
    swept = scores.thresholds()
    if isinstance(swept, str):
        return ClaimVerdict(UNKNOWN, f"Lacking: {swept}.")
    told, same, opposite = [], True, False
    for x, own in swept.groupby("mask_language", sort=False):
        found = own["verdict"].value_counts()
        same &= len(found) == 1
        opposite |= {"larger", "smaller"} <= set(found.index)
        told.append(
            f"{scores.names.get(str(x), str(x))}: hit most at {found.get('larger', 0)} "
            f"thresholds, less than another language at {found.get('smaller', 0)}, open at "
            f"{found.get('open', 0)}, with {own['n_neurons'].min()} to {own['n_neurons'].max()} "
            f"neurons and LangSpec-F1 {own['langspec_f1'].min():.3f} to "
            f"{own['langspec_f1'].max():.3f}"
        )
    thresholds = pd.to_numeric(swept["value"])
    text = (
        f"{thresholds.nunique()} thresholds from {thresholds.min():g} to {thresholds.max():g} "
        f"(notebook 08). {'; '.join(told)}."
    )
    return ClaimVerdict(FAILS if opposite else HOLDS if same else UNKNOWN, text)


def _language_not_task(scores: Scores) -> ClaimVerdict:
    found = scores.hit_most()
    first, *rest = found.values()
    told = "; ".join(
        f"{name} {', '.join(scores.names[x] for x in scores.names if x in own) or 'none'}"
        for name, own in found.items()
    )
    text = f"CRANE's masks cost their own language most in: {told}."
    if not rest:
        return ClaimVerdict(
            UNKNOWN, f"{text} Lacking: a benchmark that is given in more than one language."
        )
    if not first:
        return ClaimVerdict(UNKNOWN, f"{text} There is no effect that could be one or the other.")
    return ClaimVerdict(HOLDS if all(first <= own for own in rest) else FAILS, text)


def _against_lape(scores: Scores, number: str) -> tuple[list[str], list[str], str]:
    """Outcomes of drops of the masked language and of LangSpec-F1, CRANE against LAPE."""
    drops, f1, shown = [], [], []
    for x, name in scores.names.items():
        drops.append(clearly(scores.versus(number, "CRANE", scores.lape, x, [x])))
        both = [scores.f1(number, method, x) for method in ("CRANE", scores.lape)]
        f1.append(against(*both))
        shown.append(
            f"{name} {_drops(scores, number, x, [x])} (LangSpec-F1 {_f1(both[0])} against "
            f"{_f1(both[1])})"
        )
    return drops, f1, f"Drops of the masked language: {'; '.join(shown)}."


def _open_ended_base(scores: Scores) -> ClaimVerdict:
    drops, f1, text = _against_lape(scores, "2")
    return ClaimVerdict(_and(verdict_of(drops), verdict_of(f1, least=2)), text)


def _chat_nlu_target(scores: Scores) -> ClaimVerdict:
    drops, _, text = _against_lape(scores, "3")
    return ClaimVerdict(verdict_of(drops), text)


def _chat_vietnamese(scores: Scores) -> ClaimVerdict:
    if "vi" not in scores.names:
        return ClaimVerdict(UNKNOWN, "Lacking: Vietnamese.")
    _, f1, _ = _against_lape(scores, "3")
    margin = {
        x: scores.f1("3", "CRANE", x).estimate - scores.f1("3", scores.lape, x).estimate
        for x in scores.names
    }
    shown = ", ".join(
        f"{scores.names[x]} {value:+.4f}".replace("-", "−") for x, value in margin.items()
    )
    text = f"LangSpec-F1 of CRANE less that of {scores.lape}: {shown}; clearly higher for "
    text += f"{_count(f1, 'more')}."
    most = HOLDS if margin["vi"] >= max(margin.values()) else FAILS
    return ClaimVerdict(_and(verdict_of(f1, least=2), most), text)


def _open_ended_chat(scores: Scores) -> ClaimVerdict:
    drops, _, text = _against_lape(scores, "4")
    return ClaimVerdict(verdict_of(drops, least=2), text)


def _transfer_retained(scores: Scores) -> ClaimVerdict:
    outcomes, random, shown = [], [], []
    for number in "34":
        for x, name in scores.names.items():
            found = scores.random_drop(number, "CRANE", x, [x])
            random.append(found)
            outcomes.append(found.outcome if found.known else "open")
            drop = scores.said(number, scores.drop(number, "CRANE", x, [x]))
            shown.append(f"Table {number}, {name} {drop}; {found.said}")
    text = (
        "Drops of the masked language on the chat model lie above what random masks do in "
        f"{_count(outcomes, 'more')} cases. {'. '.join(shown)}.{_few(random)}"
    )
    return ClaimVerdict(verdict_of(outcomes), text)


def _stronger_than_activation(scores: Scores) -> ClaimVerdict:
    drops, f1 = [], []
    for number in _there(scores):
        more = _against_lape(scores, number)
        drops += more[0]
        f1 += more[1]
    text = (
        f"CRANE's mask costs its language more than LAPE's in {_count(drops, 'more')} cases, and "
        f"less in {_count(drops, 'less')}; its LangSpec-F1 is higher in {_count(f1, 'more')} and "
        f"lower in {_count(f1, 'less')}.{_no_tables(scores)}"
    )
    found = _and(verdict_of(drops), verdict_of(f1))
    return ClaimVerdict(UNKNOWN if found == HOLDS and _no_tables(scores) else found, text)


def _metric_is_selective(scores: Scores) -> ClaimVerdict:
    tables = [scores.definition(n).assign(table=f"Table {n}") for n in _there(scores)]
    found = pd.concat(tables, ignore_index=True)
    fails, meets = (found[found["relative"] == which] for which in ("smaller", "larger"))
    even = scores.at_floor("1")
    most = max(even, key=lambda x: even[x])
    best = float(found.loc[found["table"] == "Table 1", "langspec_f1"].max())
    floor = HOLDS if even[most] < best else FAILS
    text = (
        f"A mask that takes every language to its floor would score {even[most]:.3f} as one for "
        f"{scores.names[most]}; the best row of Table 1 has {best:.3f}."
    )
    if not len(fails) or not len(meets):
        lacking = "fails" if not len(fails) else "meets"
        order, text = UNKNOWN, f"No row clearly {lacking} the definition of §3.1. {text}"
    else:
        worst = fails.sort_values("langspec_f1").iloc[-1]
        below = int((meets["langspec_f1"] < worst["langspec_f1"]).sum())
        order = FAILS if below else HOLDS
        text = (
            f"{worst['table']}, {worst['method']} {worst['mask_language']} scores "
            f"{worst['langspec_f1']:.3f} though another language loses relatively more; {below} of "
            f"{len(meets)} rows that meet the definition score less. {text}"
        )
    return ClaimVerdict(_and(order, floor), text)


def _clear_separation(scores: Scores) -> ClaimVerdict:
    found = scores.regions()
    if isinstance(found, str):
        return ClaimVerdict(UNKNOWN, f"Lacking: {found}.")
    shown = [
        f"{scores.names.get(row['target'], row['target'])} {row['selected']:,} neurons, "
        f"{row['unrelated']:,.0f} if unrelated"
        for row in found.to_dict("records")
    ]
    text = f"In the region of Figure 3 that selects for a language: {'; '.join(shown)}."
    return ClaimVerdict(verdict_of(found["outcome"].to_list()), text)


def _there(scores: Scores) -> list[str]:
    return [number for number in "1234" if not scores.lacks(number)]


def _no_tables(scores: Scores) -> str:
    missing = [why for number in "1234" if (why := scores.lacks(number))]
    return f" Lacking: {missing[0]}." if missing else ""


def _f1(value: Interval) -> str:
    if value.low == value.high:
        return f"{value.estimate:.4f}"
    return f"{value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _drops(scores: Scores, number: str, target: str, of: Sequence[str]) -> str:
    first, second = (
        scores.said(number, scores.drop(number, method, target, of))
        for method in ("CRANE", scores.lape)
    )
    return f"{first} against {second} ({scores.lape})"


def _listed(items: Sequence[str]) -> str:
    return f" ({'; '.join(items)})" if items else ""


#: name in claims.yaml -> check, of any scores.
CHECKS: dict[str, Callable[[Scores], ClaimVerdict]] = {
    check.__name__.lstrip("_"): check
    for check in (
        _clear_separation,
        _highest_f1,
        _larger_target_drop,
        _non_target_preserved,
        _smaller_side_effects,
        _lape_near_zero,
        _definition_met,
        _matched_budgets,
        _threshold_robust,
        _language_not_task,
        _open_ended_base,
        _chat_nlu_target,
        _chat_vietnamese,
        _open_ended_chat,
        _transfer_retained,
        _stronger_than_activation,
        _metric_is_selective,
    )
}
#: Checks of what is printed, which nothing else can have (`audit.printed`).
PRINTED_ONLY = dict.fromkeys(("vietnamese_example", "metric_is_relative", "bold_is_best"))
#: Checks that cannot do without each of their claim's tables.
NEEDS_TABLES = (
    *("open_ended_base", "chat_nlu_target", "chat_vietnamese", "open_ended_chat"),
    "transfer_retained",
)


def tally(claims: pd.DataFrame) -> dict[str, Any]:
    """verdict -> how many claims have it in the column `verdict`, all three always there."""
    counts = claims["verdict"].value_counts()
    return {verdict: int(counts.get(verdict, 0)) for verdict in (HOLDS, FAILS, UNKNOWN)}
