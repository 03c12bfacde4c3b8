"""The paper's claims against its own tables.

The claims are listed in `data/published/claims.yaml`, in our words, each with the criterion by
which it is judged. A check gives a verdict and the numbers behind it. "holds" and "does not" are
about the printed tables alone; "cannot tell" means that they lack what the claim needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from crane_lab.audit.floors import even_damage
from crane_lab.audit.noise import CANNOT, CERTAIN, between, noise_table
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

HOLDS, FAILS, UNKNOWN = "holds", "does not", "cannot tell"
#: Neurons in LAPE's released sets for Llama-2-7B, of 352,256.
LAPE_RELEASED = {"en": 95, "zh": 583, "vi": 836}


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
    """What a check found: "holds", "does not" or "cannot tell", and the numbers in a sentence."""

    verdict: str
    evidence: str


@dataclass(frozen=True)
class Evidence:
    """What the checks look at: the published tables and which of their cells are bold."""

    tables: Mapping[str, Published]
    bold: pd.DataFrame

    @cached_property
    def noise(self) -> pd.DataFrame:
        """`noise_table` of all tables."""
        return noise_table(self.tables)

    def f1(self, number: str, method: str, target: str) -> float:
        """A printed LangSpec-F1."""
        return float(self.tables[number].row(method, target)["langspec_f1"])

    def drop(self, number: str, method: str, target: str) -> float:
        """A printed drop of the masked language itself."""
        return self.tables[number].drop(method, target)[target]

    def baselines(self, number: str) -> list[str]:
        """The methods of a table that are not CRANE."""
        return [m for m in self.tables[number].methods if m != "CRANE"]


def read_claims(folder: str | Path = "data/published") -> list[Claim]:
    """The claims in `claims.yaml`, checked: known tables, known checks, no id twice.

    Raises ValueError for a claim that is not as it should be.
    """
    found = []
    for entry in yaml.safe_load((Path(folder) / "claims.yaml").read_text(encoding="utf-8")):
        text = {key: " ".join(str(entry[key]).split()) for key in ("claim", "criterion")}
        found.append(
            Claim(
                entry["id"], entry["section"], text["claim"], tuple(entry["tables"]),
                text["criterion"], entry["check"],
            )
        )  # fmt: skip
        if entry["check"] not in CHECKS:
            raise ValueError(f"claim {entry['id']}: no check {entry['check']!r}: {list(CHECKS)}")
        if not set(entry["tables"]) <= set("1234"):
            raise ValueError(f"claim {entry['id']}: unknown tables {entry['tables']}")
    ids = [claim.id for claim in found]
    if len(set(ids)) != len(ids):
        raise ValueError("claims.yaml has an id twice")
    return found


def claims_table(folder: str | Path = "data/published") -> pd.DataFrame:
    """Every claim with its verdict from the published tables.

    Columns: id, section, claim, tables (such as "1, 2"), criterion, verdict, evidence.
    """
    evidence = Evidence(published(folder), bold_cells(folder))
    rows = []
    for claim in read_claims(folder):
        result = CHECKS[claim.check](evidence)
        rows.append(
            {
                "id": claim.id,
                "section": claim.section,
                "claim": claim.claim,
                "tables": ", ".join(claim.tables),
                "criterion": claim.criterion,
                "verdict": result.verdict,
                "evidence": result.evidence,
            }
        )
    return pd.DataFrame(rows)


def _said(verdict: bool) -> str:
    return HOLDS if verdict else FAILS


def _number(evidence: Evidence, number: str, value: float) -> str:
    """A score or drop of a table: points for accuracies, two decimals for grades."""
    if evidence.tables[number].judged:
        return f"{value:.2f}".replace("-", "−")
    return f"{100 * value:.2f} points".replace("-", "−")


def _highest_everywhere(evidence: Evidence) -> ClaimVerdict:
    settings, lost = 0, []
    for number in evidence.tables:
        for x in LANGUAGES:
            settings += 1
            own = evidence.f1(number, "CRANE", x)
            best = max((evidence.f1(number, m, x), m) for m in evidence.baselines(number))[1]
            if evidence.f1(number, best, x) >= own:
                bounds = between(evidence.tables[number], ("CRANE", x), (best, x), x)
                meant = {CERTAIN: "exceeds noise", CANNOT: "does not exceed noise"}
                lost.append(
                    f"Table {number}, {x}: {own:.4f} against {evidence.f1(number, best, x):.4f} "
                    f"for {best} (a difference of "
                    f"{abs(round(bounds.difference * evidence.tables[number].items[x]))} items in "
                    f"{x}, which {meant.get(bounds.verdict, 'may or may not exceed noise')})"
                )
    text = f"CRANE is highest in {settings - len(lost)} of {settings} settings"
    text += f"; not in {'; '.join(lost)}." if lost else "."
    return ClaimVerdict(_said(not lost), text)


def _larger_target_drop(evidence: Evidence) -> ClaimVerdict:
    lost, shown = [], []
    for x in LANGUAGES:
        values = {m: evidence.drop("1", m, x) for m in evidence.tables["1"].methods}
        if values["CRANE"] <= max(v for m, v in values.items() if m != "CRANE"):
            lost.append(x)
        shown.append(
            f"{x} " + ", ".join(f"{m} {100 * v:.2f}".replace("-", "−") for m, v in values.items())
        )
    text = f"Drops of the masked language in points: {'; '.join(shown)}."
    if lost:
        text += f" Not larger for {', '.join(NAMES[x] for x in lost)}."
    return ClaimVerdict(_said(not lost), text)


def _non_target_preserved(evidence: Evidence) -> ClaimVerdict:
    noise = evidence.noise
    own = noise[
        (noise["number"] == "1") & (noise["method"] == "CRANE") & (noise["role"] == "other")
    ]
    certain = own[(own["verdict"] == CERTAIN) & (own["drop"] > 0)]
    random = {
        (x, y): drop
        for x in LANGUAGES
        for y, drop in evidence.tables["1"].drop("Random", x).items()
    }
    above = [
        r for r in own.to_dict("records") if r["drop"] > random[r["mask_language"], r["language"]]
    ]
    worst = own.sort_values("drop").iloc[-1]
    text = (
        f"{len(certain)} of {len(own)} drops of other languages are certain to exceed noise, and "
        f"{len(above)} are larger than under the random mask for the same language. The largest: "
        f"the mask for {worst['mask_language']} takes {100 * worst['drop']:.1f} points from "
        f"{worst['language']} (random: "
        f"{100 * random[worst['mask_language'], worst['language']]:.1f})."
    )
    return ClaimVerdict(_said(certain.empty and not above), text)


def _smaller_side_effects(evidence: Evidence) -> ClaimVerdict:
    table, lost, shown = evidence.tables["1"], [], []
    for x in LANGUAGES:
        mean = {
            m: sum(d for y, d in table.drop(m, x).items() if y != x) / (len(LANGUAGES) - 1)
            for m in table.methods
        }
        if mean["CRANE"] >= min(v for m, v in mean.items() if m != "CRANE"):
            lost.append(x)
        shown.append(
            f"{x} " + ", ".join(f"{m} {100 * v:.1f}".replace("-", "−") for m, v in mean.items())
        )
    text = f"Mean drop of the two other languages in points, by mask: {'; '.join(shown)}."
    if lost:
        text += f" Not the smallest for {', '.join(NAMES[x] for x in lost)}."
    return ClaimVerdict(_said(not lost), text)


def _lape_near_zero(evidence: Evidence) -> ClaimVerdict:
    values = [evidence.f1("1", "LAPE", x) for x in LANGUAGES]
    noise = evidence.noise
    own = noise[(noise["number"] == "1") & (noise["method"] == "LAPE")]
    certain = int((own["verdict"] == CERTAIN).sum())
    text = (
        f"LangSpec-F1 is {', '.join(f'{v:.4f}' for v in values)}; {certain} of {len(own)} changes "
        f"are certain to exceed noise, the largest is "
        f"{100 * own['drop'].abs().max():.1f} points."
    )
    return ClaimVerdict(_said(max(values) < 0.05 and certain == 0), text)


def _vietnamese_example(evidence: Evidence) -> ClaimVerdict:
    table = evidence.tables["1"]
    scores = table.original["vi"], table.row("CRANE", "vi")["masked"]["vi"]
    checked = recompute({"1": table})
    row = checked[(checked["method"] == "CRANE") & (checked["mask_language"] == "vi")].iloc[0]
    text = (
        f"Table 1 has {scores[0]:.4f} and {scores[1]:.4f}; {row['recomputed']:.4f} follows, with "
        f"{row['low']:.4f} to {row['high']:.4f} allowed by rounding, and {row['printed']:.4f} is "
        "printed."
    )
    same = scores == (0.3722, 0.2233) and row["printed"] == 0.4747
    return ClaimVerdict(_said(same and row["verdict"] == "agrees"), text)


def _definition_met(evidence: Evidence) -> ClaimVerdict:
    found = definition(evidence.tables)
    own = found[found["method"] == "CRANE"]
    relative, absolute = ((own[key] == "yes").sum() for key in ("relative", "absolute"))
    missed = own[own["relative"] != "yes"]
    named = ", ".join(
        f"{row['table']} {row['mask_language']} (most on {row['hardest']})"
        for row in missed.to_dict("records")
    )
    text = (
        f"The masked language has the largest relative drop under {relative} of {len(own)} CRANE "
        f"masks, the largest absolute drop under {absolute}."
    )
    text += f" Relative drops are not largest there in {named}." if named else ""
    return ClaimVerdict(_said(missed.empty), text)


def _matched_budgets(evidence: Evidence) -> ClaimVerdict:
    printed = [t.name for t in evidence.tables.values() if "n_neurons" in t.scores]
    counts = ", ".join(f"{n} for {NAMES[x]}" for x, n in LAPE_RELEASED.items())
    text = (
        f"{len(printed)} of {len(evidence.tables)} tables print how many neurons a mask has. "
        f"LAPE's released sets for this model are of unequal size ({counts}), so that "
        "one budget for all needs other sets than those, or a budget for each language."
    )
    if not printed:
        return ClaimVerdict(UNKNOWN, text)
    equal = all(
        group["n_neurons"].nunique() == 1
        for number in evidence.tables
        for _, group in evidence.tables[number].scores.iloc[1:].groupby("mask_language")
    )
    return ClaimVerdict(_said(equal), text)


def _threshold_robust(evidence: Evidence) -> ClaimVerdict:
    varied = [
        t.name
        for t in evidence.tables.values()
        if {"threshold", "budget", "n_neurons"} & set(t.scores.columns)
        or t.scores.duplicated(["method", "mask_language"]).any()
    ]
    rows = sum(len(t.scores) - 1 for t in evidence.tables.values())
    if not varied:
        return ClaimVerdict(
            UNKNOWN,
            f"None of the {len(evidence.tables)} tables ({rows} masks) has a threshold, a budget "
            "or the same mask twice; the threshold in Figure 3 is 1 throughout.",
        )
    return ClaimVerdict(
        UNKNOWN, f"{', '.join(varied)} vary it; the check does not read the outcome."
    )


def _language_not_task(evidence: Evidence) -> ClaimVerdict:
    benchmarks = {"en": "MMLU", "zh": "C-Eval", "vi": "Belebele"}
    shared = len(LANGUAGES) - len(set(benchmarks.values()))
    listed = ", ".join(f"{NAMES[x]} {b}" for x, b in benchmarks.items())
    text = (
        f"Tables 1 and 3 give each language one benchmark of its own ({listed}), so {shared} "
        "benchmarks are given in two languages: a drop on Belebele may be a loss of Vietnamese or "
        "a loss of reading."
    )
    return ClaimVerdict(HOLDS if shared else UNKNOWN, text)


def _against_lape(evidence: Evidence, number: str) -> tuple[list[str], list[str], str]:
    """Languages whose drop, and whose LangSpec-F1, is larger under CRANE; and the numbers."""
    drops, f1, shown = [], [], []
    for x in LANGUAGES:
        own, other = (evidence.drop(number, m, x) for m in ("CRANE", "LAPE"))
        values = [evidence.f1(number, m, x) for m in ("CRANE", "LAPE")]
        if own > other:
            drops.append(x)
        if values[0] > values[1]:
            f1.append(x)
        shown.append(
            f"{x} {_number(evidence, number, own)} against {_number(evidence, number, other)} "
            f"(LangSpec-F1 {values[0]:.4f} against {values[1]:.4f})"
        )
    return drops, f1, f"Drops of the masked language, CRANE against LAPE: {'; '.join(shown)}."


def _open_ended_base(evidence: Evidence) -> ClaimVerdict:
    drops, f1, text = _against_lape(evidence, "2")
    return ClaimVerdict(_said(len(drops) == 3 and len(f1) >= 2), text)


def _chat_nlu_target(evidence: Evidence) -> ClaimVerdict:
    drops, _, text = _against_lape(evidence, "3")
    lost = [NAMES[x] for x in LANGUAGES if x not in drops]
    return ClaimVerdict(
        _said(not lost), text + (f" Not larger for {', '.join(lost)}." if lost else "")
    )


def _chat_vietnamese(evidence: Evidence) -> ClaimVerdict:
    margin = {x: evidence.f1("3", "CRANE", x) - evidence.f1("3", "LAPE", x) for x in LANGUAGES}
    ahead = [x for x, value in margin.items() if value > 0]
    best = max(margin, key=margin.__getitem__)
    shown = ", ".join(f"{x} {value:+.4f}".replace("-", "−") for x, value in margin.items())
    text = f"LangSpec-F1 of CRANE less that of LAPE: {shown}. It is higher for {len(ahead)} of 3."
    return ClaimVerdict(_said(len(ahead) >= 2 and best == "vi"), text)


def _open_ended_chat(evidence: Evidence) -> ClaimVerdict:
    drops, _, text = _against_lape(evidence, "4")
    return ClaimVerdict(_said(len(drops) >= 2), text + " There is no random control.")


def _transfer_retained(evidence: Evidence) -> ClaimVerdict:
    controlled = [n for n in "34" if "Random" in evidence.tables[n].methods]
    noise = evidence.noise
    own = noise[
        noise["number"].isin(["3", "4"])
        & (noise["method"] == "CRANE")
        & (noise["role"] == "target")
    ]
    certain = own[(own["verdict"] == CERTAIN) & (own["drop"] > 0)]
    named = ", ".join(
        f"{row['table']} {row['mask_language']}" for row in certain.to_dict("records")
    )
    text = (
        f"{len(certain)} of {len(own)} drops of the masked language are certain to exceed noise "
        f"({named}), but neither table has a random mask to say what any mask of that size costs. "
        f"On the base model random masks took up to "
        f"{100 * max(evidence.drop('1', 'Random', x) for x in LANGUAGES):.1f} points; on the chat "
        "model CRANE's take "
        + ", ".join(f"{100 * evidence.drop('3', 'CRANE', x):.1f} ({x})" for x in LANGUAGES)
        + "."
    )
    if not controlled:
        return ClaimVerdict(UNKNOWN, text)
    beats = all(
        evidence.drop(n, "CRANE", x) > evidence.drop(n, "Random", x)
        for n in controlled
        for x in LANGUAGES
    )
    return ClaimVerdict(_said(beats), text)


def _stronger_than_activation(evidence: Evidence) -> ClaimVerdict:
    lost, settings = [], 0
    for number in evidence.tables:
        drops, f1, _ = _against_lape(evidence, number)
        settings += len(LANGUAGES)
        lost += [f"Table {number} {x}" for x in LANGUAGES if x not in drops or x not in f1]
    text = f"Both are larger in {settings - len(lost)} of {settings} settings"
    text += f"; not in {', '.join(lost)}." if lost else "."
    return ClaimVerdict(_said(not lost), text)


def _metric_is_selective(evidence: Evidence) -> ClaimVerdict:
    found = definition(evidence.tables).merge(
        recompute(evidence.tables), on=["table", "method", "mask_language"]
    )
    meets = found["relative"] == "yes"
    worst = found[~meets].sort_values("recomputed").iloc[-1]
    below = found[meets & (found["recomputed"] < worst["recomputed"])]
    table = evidence.tables["1"]
    even = {x: float(even_damage(table.original, table.floor, x, 1.0)[0]) for x in LANGUAGES}
    most = max(even, key=even.__getitem__)
    best = max(table.rows(), key=lambda row: row["langspec_f1"])
    text = (
        f"{worst['table']}, {worst['method']} {worst['mask_language']} scores "
        f"{worst['recomputed']:.4f} though {NAMES[worst['hardest']]} loses relatively more; "
        f"{len(below)} of {int(meets.sum())} rows that meet the definition score less. A mask that "
        f"takes all three languages to guessing would score {even[most]:.4f} as one for "
        f"{NAMES[most]}; the best row of Table 1 has {best['langspec_f1']:.4f}."
    )
    return ClaimVerdict(_said(below.empty and even[most] < best["langspec_f1"]), text)


def _metric_is_relative(evidence: Evidence) -> ClaimVerdict:
    agree = {
        key: recompute(evidence.tables, relative=key == "relative")["verdict"].eq("agrees").sum()
        for key in ("absolute", "relative")
    }
    total = sum(len(t.scores) - 1 for t in evidence.tables.values())
    text = (
        f"With absolute drops in Eq. 3, {agree['absolute']} of {total} printed values follow from "
        f"their rows, with relative ones {agree['relative']}."
    )
    return ClaimVerdict(_said(agree["relative"] >= agree["absolute"]), text)


def _bold_is_best(evidence: Evidence) -> ClaimVerdict:
    cells = bold(evidence.tables, evidence.bold)
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
        "language that the mask is not for, where a low score is damage that selectivity forbids; "
        f"{len(wrong)} are beaten by another method under the same mask. Best and not bold: "
        f"{named or 'none'}."
    )
    return ClaimVerdict(_said(others.empty and unmarked.empty and wrong.empty), text)


#: name in claims.yaml -> check.
CHECKS: dict[str, Callable[[Evidence], ClaimVerdict]] = {
    check.__name__.lstrip("_"): check
    for check in (
        _highest_everywhere,
        _larger_target_drop,
        _non_target_preserved,
        _smaller_side_effects,
        _lape_near_zero,
        _vietnamese_example,
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
        _metric_is_relative,
        _bold_is_best,
    )
}


def tally(claims: pd.DataFrame) -> dict[str, Any]:
    """verdict -> how many claims of `claims_table` have it, all three verdicts always there."""
    counts = claims["verdict"].value_counts()
    return {verdict: int(counts.get(verdict, 0)) for verdict in (HOLDS, FAILS, UNKNOWN)}
