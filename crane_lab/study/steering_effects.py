"""What steering does to answers: how often the language follows, what it costs, beside controls.

`table` is that of `steering.answer_outcomes`. A score is a mean over question languages, laid out
as (targets, questions): its interval is for other target languages and other questions
(`taught_effects.crossed_interval`). Languages are few and related, so it is a narrow one. Pairs of
a language with itself are left out everywhere: there is nothing to force.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crane_lab.stages.standing import corrected
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
    `gain_high`, `p` and `q` (corrected over the rows); the shares that `stayed` in the question's
    language, are `elsewhere`, in a third language, and `untold`; `both`, the share in the target
    and right; `repeated` as in `answer_outcomes`; `loss`, nats per token under the model as it is,
    and `native_loss`, that of its own answers in the targets. Where random neurons had the same
    numbers written to them: `random`, their share, and `ahead`, the method's less theirs, with
    `ahead_low`, `ahead_high`, `ahead_p` and `ahead_q`; every target has draws of its own, so that
    they are among what the interval is over.
    """
    untouched = table[table["method"] == UNSTEERED]
    before = _laid_out(untouched, "in_target")
    native = untouched[untouched["source"] == untouched["target"]]
    native_loss = dict(zip(native["target"], native["loss"].astype(float), strict=True))
    rows = [] if untouched.empty else [_unsteered(untouched, native_loss)]
    steered = table[(table["method"] != UNSTEERED) & ~table["method"].str.startswith(RANDOM)]
    for (method, *about), own in steered.groupby(["method", *SETUP], sort=False):
        setup = (str(about[0]), str(about[1]), float(str(about[2])))
        targets = list(dict.fromkeys(own["target"]))
        inside = _laid_out(own, "in_target")
        gain = crossed_interval(_stacked(inside, targets) - _stacked(before, targets))
        row: dict[str, object] = {
            "method": method,
            **dict(zip(SETUP, setup, strict=True)),
            **_shares(own, targets),
            "native_loss": np.mean([native_loss[x] for x in targets]),
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
        rows.append(row)
    found = pd.DataFrame(rows).reindex(columns=[*_COLUMNS])
    for p, q in (("p", "q"), ("ahead_p", "ahead_q")):
        found[q] = corrected(found[p])
    return found


def _unsteered(untouched: pd.DataFrame, native_loss: dict[str, float]) -> dict[str, object]:
    targets = list(dict.fromkeys(untouched["target"]))
    about = {"method": UNSTEERED, "kind": "", "statistic": "", "strength": 0.0}
    native = {"native_loss": np.mean(list(native_loss.values()))}
    return {**about, **_shares(untouched, targets), **native}


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
            for name in ("stayed", "elsewhere", "untold", "both")
        },
        "repeated": apart["repeated"].mean(),
        "loss": apart["loss"].mean(),
    }


_COLUMNS = (
    *("method", *SETUP, "targets", "share", "low", "high", "gain", "gain_low", "gain_high", "p"),
    *("stayed", "elsewhere", "untold", "both", "repeated", "loss", "native_loss"),
    *("random", "ahead", "ahead_low", "ahead_high", "ahead_p"),
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
    methods = [
        str(method)
        for method in dict.fromkeys(table["method"])
        if method != UNSTEERED and not str(method).startswith(RANDOM)
    ]
    for name, pair in compared.items():
        for method in methods:
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


def _of(table: pd.DataFrame, method: str, setup: Setting) -> pd.DataFrame:
    chosen = table["method"] == method
    for name, value in zip(SETUP, setup, strict=True):
        chosen &= table[name] == value
    return table[chosen]


def _laid_out(rows: pd.DataFrame, what: str) -> dict[str, Array]:
    """Target -> mean of each question's outcome over question languages and draws.

    `what`: one of `answer_outcomes`' texts of digits, or "both", in the target and correct.
    """
    found: dict[str, list[Array]] = {}
    for row in rows[rows["source"] != rows["target"]].to_dict("records"):
        digits = [
            np.array([int(x) for x in row[name]], float)
            for name in (("in_target", "correct") if what == "both" else (what,))
        ]
        found.setdefault(str(row["target"]), []).append(np.prod(digits, axis=0))
    return {x: np.mean(own, axis=0) for x, own in found.items()}


def _stacked(outcomes: dict[str, Array], targets: list[str]) -> Array:
    return np.stack([outcomes[x] for x in targets])
