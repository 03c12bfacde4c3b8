"""What steering does to answers: how often the language follows, what it costs, beside controls.

A score is a mean over question languages, laid out as (targets, questions): its interval is for
other target languages and other questions (`taught_effects.crossed_interval`). Languages are few
and related, so it is a narrow one. Pairs of a language with itself are left out everywhere: there
is nothing to force.
"""

from __future__ import annotations

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


def forcing_matrix(table: pd.DataFrame, method: str, setup: tuple[str, str, float]) -> pd.DataFrame:
    """Share of answers in the target: languages of the question × targets, mean over draws."""
    own = _of(table, method, setup)
    own = own.assign(share=[np.mean([int(x) for x in right]) for right in own["right"]])
    wide = own.pivot_table(index="source", columns="target", values="share", sort=False)
    order = [x for x in dict.fromkeys(table["source"]) if x in wide.index]
    return wide.loc[order, [x for x in order if x in wide.columns]]


def steering_summary(table: pd.DataFrame) -> pd.DataFrame:
    """What every method does under every setup, mean over pairs of languages.

    One row per method and `SETUP`: `targets`; `share` of answers in the target with `low` and
    `high`; `gain`, the share less the untouched model's with the same questions, with `gain_low`,
    `gain_high`, `p` and `q` (corrected over the rows); `kept`, the share that is in the target and
    has a right answer in it; `loss`, nats per token under the model as it is, beside that of its
    own answers in the target language (`native_loss`); `empty`, the share of empty answers. Where
    random sets had the same setup: `random`, their share, and `ahead`, the method's less theirs,
    with `ahead_low`, `ahead_high`, `ahead_p` and `ahead_q`.
    """
    before = _laid_out(table[table["method"] == UNSTEERED], "right")
    native = table[(table["method"] == UNSTEERED) & (table["source"] == table["target"])]
    native_loss = native.set_index("target")["loss"].to_dict()
    rows = []
    steered = table[(table["method"] != UNSTEERED) & ~table["method"].str.startswith(RANDOM)]
    for (method, *about), own in steered.groupby(["method", *SETUP], sort=False):
        setup = (str(about[0]), str(about[1]), float(str(about[2])))
        targets = list(dict.fromkeys(own["target"]))
        right = _laid_out(own, "right")
        share = crossed_interval(_stacked(right, targets))
        gain = crossed_interval(_stacked(right, targets) - _stacked(before, targets))
        apart = own[own["source"] != own["target"]]
        n = len(own["right"].iloc[0])
        row: dict[str, object] = {
            "method": method,
            **dict(zip(SETUP, setup, strict=True)),
            "targets": len(targets),
            "share": share.mean,
            "low": share.low,
            "high": share.high,
            "gain": gain.mean,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "p": gain.p,
            "kept": _stacked(_laid_out(own, "both"), targets).mean(),
            "loss": apart["loss"].mean(),
            "native_loss": np.mean([native_loss[x] for x in targets]),
            "empty": apart["empty"].sum() / (n * len(apart)),
        }
        drawn = _of(table, f"{RANDOM} as {method}", setup)
        with_random = [x for x in targets if x in set(drawn["target"])]
        if with_random:
            random = _stacked(_laid_out(drawn, "right"), with_random)
            ahead = crossed_interval(_stacked(right, with_random) - random)
            row |= {"random": random.mean(), "ahead": ahead.mean, "ahead_low": ahead.low}
            row |= {"ahead_high": ahead.high, "ahead_p": ahead.p}
        rows.append(row)
    found = pd.DataFrame(rows).reindex(columns=[*_COLUMNS])
    for p, q in (("p", "q"), ("ahead_p", "ahead_q")):
        found[q] = corrected(found[p])
    return found


_COLUMNS = (
    *("method", *SETUP, "targets", "share", "low", "high", "gain", "gain_low", "gain_high", "p"),
    *("kept", "loss", "native_loss", "empty"),
    *("random", "ahead", "ahead_low", "ahead_high", "ahead_p"),
)


def setup_contrast(
    table: pd.DataFrame, first: tuple[str, str, float], second: tuple[str, str, float]
) -> pd.DataFrame:
    """How much more often one setup reaches the target than another, paired, a row per method.

    `difference`, first less second, with `low`, `high`, `p` and `q`, over `targets` that both have.
    """
    rows = []
    for method in dict.fromkeys(table["method"]):
        if method == UNSTEERED or str(method).startswith(RANDOM):
            continue
        a, b = (_laid_out(_of(table, str(method), setup), "right") for setup in (first, second))
        targets = [x for x in a if x in b]
        if targets:
            found = crossed_interval(_stacked(a, targets) - _stacked(b, targets))
            row = {"method": method, "targets": len(targets), "difference": found.mean}
            rows.append({**row, "low": found.low, "high": found.high, "p": found.p})
    columns = ["method", "targets", "difference", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(q=corrected(frame["p"]))


def _of(table: pd.DataFrame, method: str, setup: tuple[str, str, float]) -> pd.DataFrame:
    chosen = table["method"] == method
    for name, value in zip(SETUP, setup, strict=True):
        chosen &= table[name] == value
    return table[chosen]


def _laid_out(rows: pd.DataFrame, what: str) -> dict[str, Array]:
    """Target -> mean of each question's outcome over question languages and draws.

    `what`: "right", "kept", or "both", an answer in the target that is right, too.
    """
    found: dict[str, list[Array]] = {}
    for row in rows[rows["source"] != rows["target"]].to_dict("records"):
        digits = [
            np.array([int(x) for x in row[name]], float)
            for name in (("right", "kept") if what == "both" else (what,))
        ]
        found.setdefault(str(row["target"]), []).append(np.prod(digits, axis=0))
    return {x: np.mean(own, axis=0) for x, own in found.items()}


def _stacked(outcomes: dict[str, Array], targets: list[str]) -> Array:
    return np.stack([outcomes[x] for x in targets])
