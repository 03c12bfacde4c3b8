"""What steering does to answers: how often the language follows, what it costs, beside controls.

`table` is that of `steering.answer_outcomes`. A score is a mean over question languages, laid out
as (targets, questions): its interval is for other target languages and other questions
(`taught_effects.crossed_interval`). Languages are few and related, so it is a narrow one. Pairs of
a language with itself are left out everywhere: there is nothing to force.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata

from crane_lab.stages.standing import corrected
from crane_lab.study.relatedness import mantel_tests
from crane_lab.study.taught import RANDOM
from crane_lab.study.taught_effects import crossed_interval

Array = NDArray[np.float64]

#: What a setup is, beside whose neurons it is done to.
SETUP = ["kind", "statistic", "strength"]
UNSTEERED = "none"
#: Kind, statistic and strength.
Setting = tuple[str, str, float]


def forcing_matrix(table: pd.DataFrame, method: str, setup: Setting) -> pd.DataFrame:
    """Share of answers in the target: languages of the question × targets, mean over draws."""
    own = _of(table, method, setup)
    own = own.assign(share=[np.mean([int(x) for x in digits]) for digits in own["in_target"]])
    wide = own.pivot_table(index="source", columns="target", values="share", sort=False)
    order = [x for x in dict.fromkeys(table["source"]) if x in wide.index]
    return wide.loc[order, [x for x in order if x in wide.columns]]


def steering_summary(table: pd.DataFrame) -> pd.DataFrame:
    """What every method does under every setup, mean over pairs of languages.

    One row per method and `SETUP`: `targets`; `share` of answers in the target with `low` and
    `high`; `gain`, the share less the untouched model's with the same questions, with `gain_low`,
    `gain_high`, `p` and `q` (corrected over the rows); the shares that are in the target with a
    `sure` identifier, that `stayed` in the question's language, are `elsewhere`, in a third
    language, and `untold`; `both`, the share in the target and right; `repeated` as in
    `answer_outcomes`; `loss`, nats per token under the model as it is. Of its own answers to
    questions in the targets: `native_loss`, and `native_both`, the share in them and right. Where
    random neurons had the same numbers written to them: `random`, their share, `random_loss`, and
    `ahead`, the method's share less theirs, with `ahead_low`, `ahead_high`, `ahead_p` and
    `ahead_q`; every target has draws of its own, so that they are among what the interval is over.
    """
    untouched = table[table["method"] == UNSTEERED]
    before = _laid_out(untouched, "in_target")
    native = untouched[untouched["source"] == untouched["target"]]
    of_its_own = _native(native)
    rows = [] if untouched.empty else [_unsteered(untouched, of_its_own)]
    steered = of_methods(table)
    for (method, *about), own in steered.groupby(["method", *SETUP], sort=False):
        setup = (str(about[0]), str(about[1]), float(str(about[2])))
        targets = list(dict.fromkeys(own["target"]))
        inside = _laid_out(own, "in_target")
        gain = crossed_interval(_stacked(inside, targets) - _stacked(before, targets))
        row: dict[str, object] = {
            "method": method,
            **dict(zip(SETUP, setup, strict=True)),
            **_shares(own, targets),
            **_mean_of(of_its_own[x] for x in targets),
            "gain": gain.mean,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "p": gain.p,
        }
        drawn = _of(table, f"{RANDOM} as {method}", setup)
        with_random = [x for x in targets if x in set(drawn["target"])]
        if with_random:
            random = _stacked(_laid_out(drawn, "in_target"), with_random)
            ahead = crossed_interval(_stacked(inside, with_random) - random)
            row |= {"random": random.mean(), "ahead": ahead.mean, "ahead_low": ahead.low}
            row |= {"ahead_high": ahead.high, "ahead_p": ahead.p}
            row["random_loss"] = drawn.loc[drawn["source"] != drawn["target"], "loss"].mean()
        rows.append(row)
    found = pd.DataFrame(rows).reindex(columns=[*_COLUMNS])
    for p, q in (("p", "q"), ("ahead_p", "ahead_q")):
        found[q] = corrected(found[p])
    return found


def of_methods(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of methods' own sets: neither random ones nor the model as it is."""
    return table[(table["method"] != UNSTEERED) & ~table["method"].str.startswith(RANDOM)]


def methods_in(table: pd.DataFrame) -> list[str]:
    """The methods whose own sets a table has."""
    return [str(method) for method in dict.fromkeys(of_methods(table)["method"])]


def _native(own: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Target -> `native_loss` and `native_both` of the untouched model's answers in it."""
    return {
        str(row["target"]): {
            "native_loss": float(row["loss"]),
            "native_both": float(_each(row, "both").mean()),
        }
        for row in own.to_dict("records")
    }


def _mean_of(each: Iterable[Mapping[str, float]]) -> dict[str, object]:
    return {str(name): value for name, value in pd.DataFrame(list(each)).mean().items()}


def _unsteered(
    untouched: pd.DataFrame, of_its_own: Mapping[str, Mapping[str, float]]
) -> dict[str, object]:
    targets = list(dict.fromkeys(untouched["target"]))
    about = {"method": UNSTEERED, "kind": "", "statistic": "", "strength": 0.0}
    return {**about, **_shares(untouched, targets), **_mean_of(of_its_own.values())}


def _shares(own: pd.DataFrame, targets: list[str]) -> dict[str, object]:
    """Mean shares of `own`'s answers over pairs of languages, and the interval of `share`."""
    share = crossed_interval(_stacked(_laid_out(own, "in_target"), targets))
    apart = own[own["source"] != own["target"]]
    return {
        "targets": len(targets),
        "share": share.mean,
        "low": share.low,
        "high": share.high,
        **{
            name: _stacked(_laid_out(own, name), targets).mean()
            for name in ("sure", "stayed", "elsewhere", "untold", "both")
        },
        "repeated": apart["repeated"].mean(),
        "loss": apart["loss"].mean(),
    }


_COLUMNS = (
    *("method", *SETUP, "targets", "share", "low", "high", "gain", "gain_low", "gain_high", "p"),
    *("sure", "stayed", "elsewhere", "untold", "both", "repeated", "loss"),
    *("native_loss", "native_both"),
    *("random", "ahead", "ahead_low", "ahead_high", "ahead_p", "random_loss"),
)


def setup_contrasts(
    table: pd.DataFrame, compared: Mapping[str, tuple[Setting, Setting]]
) -> pd.DataFrame:
    """How much more often one setup reaches the target than another, paired.

    One row per comparison and method that had both setups: `compared`, its name, `difference`,
    first less second, with `low`, `high`, `p`, and `q` over all rows, and the `targets` that both
    have.
    """
    rows = []
    for name, pair in compared.items():
        for method in methods_in(table):
            a, b = (_laid_out(_of(table, method, setup), "in_target") for setup in pair)
            targets = [x for x in a if x in b]
            if targets:
                found = crossed_interval(_stacked(a, targets) - _stacked(b, targets))
                row = {"compared": name, "method": method, "targets": len(targets)}
                row |= {"difference": found.mean, "low": found.low, "high": found.high}
                rows.append({**row, "p": found.p})
    columns = ["compared", "method", "targets", "difference", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(q=corrected(frame["p"].astype(float)))


def success_by_language(
    table: pd.DataFrame,
    setup: Setting,
    known: pd.DataFrame,
    permutations: int = 4999,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether steering works better for languages that are known better, and between related ones.

    Success is the share of answers in the target less the untouched model's, which reaches some
    languages by itself. One row per method: `known_rho`, Spearman's correlation over targets of the
    success with nats per paragraph (`known.known_languages`; negative if it is larger for languages
    that are known better), with `known_p`; `kin_rho`, over pairs of languages, of the success, mean
    of both directions, with distance in the family tree (Mantel's, negative if it is larger between
    related ones), with `kin_p`, which is of a correlation so negative; `q` of each over the
    methods; `targets`.
    """
    untouched = forcing_matrix(table, UNSTEERED, ("", "", 0.0))
    nats, rows = dict(zip(known["language"], known["nats"], strict=True)), []
    for method in methods_in(table):
        matrix = forcing_matrix(table, method, setup)
        targets = [x for x in matrix.columns if x in nats and x in matrix.index]
        if len(targets) < 4:
            continue
        shares = (matrix - untouched).loc[targets, targets].to_numpy(float).copy()
        np.fill_diagonal(shares, np.nan)
        reached = rankdata(np.nanmean(shares, axis=0))
        needed = rankdata([nats[x] for x in targets])
        row: dict[str, object] = {"method": method, "targets": len(targets)}
        row |= {"known_rho": np.nan, "known_p": np.nan}
        if reached.std():
            result = permutation_test(
                (reached,),
                lambda order, needed=needed: float(np.corrcoef(order, needed)[0, 1]),
                permutation_type="pairings",
                n_resamples=permutations,
                rng=seed,
            )
            row |= {"known_rho": float(result.statistic), "known_p": float(result.pvalue)}
        pairs = [
            {"a": a, "b": b, "excess": (shares[i, j] + shares[j, i]) / 2}
            for (i, a), (j, b) in combinations(enumerate(targets), 2)
        ]
        kin = mantel_tests(pd.DataFrame(pairs), targets, ["genetic"], permutations, seed).iloc[0]
        rows.append({**row, "kin_rho": kin["rho"], "kin_p": kin["p"]})
    columns = ["method", "targets", "known_rho", "known_p", "kin_rho", "kin_p"]
    found = pd.DataFrame(rows, columns=columns)
    for name in ("known", "kin"):
        found[f"{name}_q"] = corrected(found[f"{name}_p"].astype(float))
    return found


def _of(table: pd.DataFrame, method: str, setup: Setting) -> pd.DataFrame:
    chosen = table["method"] == method
    for name, value in zip(SETUP, setup, strict=True):
        chosen &= table[name] == value
    return table[chosen]


def _each(row: Mapping[Hashable, Any], what: str) -> Array:
    """Each question's outcome in a row.

    `what`: one of `answer_outcomes`' texts of digits, or "both", in the target and correct.
    """
    names = ("in_target", "correct") if what == "both" else (what,)
    return np.prod([np.array([int(x) for x in row[name]], float) for name in names], axis=0)


def _laid_out(rows: pd.DataFrame, what: str) -> dict[str, Array]:
    """Target -> mean of each question's outcome over question languages and draws."""
    found: dict[str, list[Array]] = {}
    for row in rows[rows["source"] != rows["target"]].to_dict("records"):
        found.setdefault(str(row["target"]), []).append(_each(row, what))
    return {x: np.mean(own, axis=0) for x, own in found.items()}


def _stacked(outcomes: dict[str, Array], targets: list[str]) -> Array:
    return np.stack([outcomes[x] for x in targets])
