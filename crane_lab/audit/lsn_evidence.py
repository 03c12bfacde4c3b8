"""What the LSN paper's tables, and a model's results, have to say to its claims (`lsn_claims`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from crane_lab.audit.claims import NOT_TESTED
from crane_lab.audit.lsn import (
    FOLDER,
    ITEMS,
    LEAST_OF_SILU,
    lsn_before_act_fn,
    lsn_change,
    lsn_changes,
    lsn_table,
)
from crane_lab.audit.lsn_claims import LsnEvidence
from crane_lab.audit.noise import CERTAIN
from crane_lab.stages.standing import FDR
from crane_lab.study.contenders import ACT_PROB
from crane_lab.study.taught_effects import (
    floor_of,
    taught_beside_random,
    taught_contrast,
    taught_effects,
    taught_levels,
)

#: What the paper's tables are of.
_XNLI, _XQUAD = "XNLI", "XQuAD"


def paper_evidence(folder: str | Path = FOLDER) -> LsnEvidence:
    """Of the printed tables, whose changes are certain where no choice of items explains them.

    Certain is each by itself; nothing is corrected over the rows.
    """
    values = pd.concat(
        lsn_changes(lsn_table(number, folder)).assign(task=task)
        for number, task in (("4", _XNLI), ("5", _XQUAD))
    )
    table7 = lsn_table("7", folder)
    plain = table7[table7["set_to"] == "none"]
    table4, table8 = lsn_table("4", folder), lsn_table("8", folder)
    untouched = table4[table4["set_to"] == "none"]
    before = untouched.set_index(["model", "method", "language"])["accuracy"].to_dict()
    once = table8.drop_duplicates(["model", "language"])
    random = once.set_index(["model", "language"])["accuracy"].to_dict()
    tuned, beside = [], []
    for row in plain.to_dict("records"):
        about = {name: row[name] for name in ("model", "method", "tuned", "language")}
        score, key = float(row["accuracy"]), (row["model"], row["language"])
        other = float(before[(row["model"], row["method"], row["language"])])
        tuned.append({**about, **lsn_change(other, score, "accuracy")})
        beside.append({**about, **lsn_change(float(random[key]), score, "accuracy")})
    found = lsn_before_act_fn(folder)
    below = found[found["statistic"] == "P10"]["out_of_reach"]
    reason = (
        "percentiles written where they are read; the printed tenth ones, means over all neurons, "
        f"lie below anything that SiLU puts out ({LEAST_OF_SILU:.3f}) in {int(below.sum())} of "
        f"{len(below)} cases"
    )
    return LsnEvidence(
        values=_printed(values),
        after=_printed(lsn_changes(table7).assign(task=_XNLI)),
        tuned=_printed(pd.DataFrame(tuned).assign(task=_XNLI)),
        random=_printed(pd.DataFrame(beside).assign(task=_XNLI)),
        lacking={
            "low_percentile": reason,
            "losses": "numbers; they are drawn in a figure, and no random set is beside them",
            "shared": "numbers; they are drawn in a figure",
            "text": NOT_TESTED,
        },
    )


def _printed(changes: pd.DataFrame) -> pd.DataFrame:
    """Intervals as if other items were asked each time, the widest that a printed change can have.

    How many items changed is not printed; the more of them stayed, the narrower it is.
    """
    certain = changes["verdict"] == CERTAIN
    gain = changes["change"] > 0
    outcome = _outcomes(certain & gain, certain & ~gain)
    items = changes["task"].map({_XNLI: ITEMS["accuracy"][0], _XQUAD: ITEMS["exact_match"][0]})
    spread = [changes[end] / 100 * (1 - changes[end] / 100) for end in ("before", "after")]
    half = 100 * 1.96 * np.sqrt((spread[0] + spread[1]) / items)
    ends = {"low": changes["change"] - half, "high": changes["change"] + half}
    return changes.assign(**ends, outcome=outcome, above=True).reset_index(drop=True)


def model_evidence(
    label: str,
    activations: Mapping[str, pd.DataFrame],
    weights: Mapping[str, pd.DataFrame],
    text: pd.DataFrame | None = None,
    shared: pd.DataFrame | None = None,
    losses: pd.DataFrame | None = None,
    source: str = "en",
) -> LsnEvidence:
    """Of a model's own results; what is asked in `source`, the language of training, is left out.

    Parameters
    ----------
    label : the model's name.
    activations, weights : task -> table as `taught.read_taught` gives it.
    text : `text_taught.text_effects`. shared : `contenders.shared_by_methods`, with `smaller`, the
        number of neurons of the smaller set. losses : `value_losses.perplexity_changes` with nulls.
    """
    frames: dict[str, list[pd.DataFrame]] = {}
    for task, table in activations.items():
        above = _above(table, task)
        effects = taught_effects(table)
        as_read = effects[~effects["set_to"].str.endswith(" before")]
        _add(frames, "values", as_read, task, above, source)
        contrast = taught_contrast(table, "zero", "P10 after")
        _add(frames, "low_percentile", contrast, task, above, source)
    for task, table in weights.items():
        above, effects = _above(table, task), taught_effects(table)
        own = effects[effects["method"] != "all"]
        _add(frames, "tuned", own[own["set_to"] == ""], task, above, source)
        _add(frames, "after", own[own["set_to"] != ""], task, above, source)
        _add(frames, "random", taught_beside_random(table), task, above, source)
    found = {
        name: pd.concat(own, ignore_index=True).assign(model=label) for name, own in frames.items()
    }
    return LsnEvidence(
        values=found.get("values"),
        after=found.get("after"),
        low_percentile=found.get("low_percentile"),
        tuned=found.get("tuned"),
        random=found.get("random"),
        losses=None if losses is None else _losses(losses),
        shared=None if shared is None else _shared(shared),
        text=None if text is None else _text(text),
        lacking={
            **dict.fromkeys(("values", "low_percentile"), "interventions on a tuned model"),
            **dict.fromkeys(("tuned", "after", "random", "text"), "trainings of chosen neurons"),
        },
    )


def _above(table: pd.DataFrame, task: str) -> dict[str, bool]:
    levels = taught_levels(table, floor_of(task, table))
    return dict(zip(levels["language"], levels["above"], strict=True))


def _add(
    frames: dict[str, list[pd.DataFrame]],
    name: str,
    found: pd.DataFrame,
    task: str,
    above: Mapping[str, bool],
    source: str,
) -> None:
    """Rows of a target, in points; the neurons are the source's, the target's or both's."""
    if found.empty:
        return
    last = found["of"].str.rpartition("+")[2]
    own = found[(found["language"] != source) & ((last == found["language"]) | (last == source))]
    if "difference" in own:
        own = own.rename(columns={"difference": "change", "q": "q_change"})
    points = {column: 100 * own[column].astype(float) for column in ("change", "low", "high")}
    certain, gain = own["q_change"] <= FDR, own["change"] > 0
    outcome = _outcomes(certain & gain, certain & ~gain)
    able = own["language"].map(dict(above))
    own = own.assign(task=task, outcome=outcome, above=able, **points)
    frames.setdefault(name, []).append(own)


def _losses(changes: pd.DataFrame) -> pd.DataFrame:
    own = changes[
        (changes["set_to"] == "zero")
        & (changes["mask_language"] == changes["text_language"])
        & (changes["n_neurons"] > 0)
    ]
    more = (own["change_low"] > 0) & (own["q"] <= FDR)
    outcome = _outcomes(more, own["change_high"] < 0)
    return own.assign(language=own["mask_language"], outcome=outcome)


def _shared(shared: pd.DataFrame) -> pd.DataFrame:
    pair = shared[(shared["a"] == "LAPE matched") & (shared["b"] == ACT_PROB)]
    return pd.DataFrame(
        {
            "language": pair["language"],
            "share": pair["shared"] / pair["smaller"],
            "chance": pair["chance"] / pair["smaller"],
        }
    )


def _text(effects: pd.DataFrame) -> pd.DataFrame:
    chosen = ~effects["method"].isin(("none", "all"))
    own = effects[(effects["of"] == effects["language"]) & chosen]
    low, high = own["beyond_low"], own["beyond_high"]
    outcome = _outcomes(low > 0, high < 0)
    return pd.DataFrame(
        {
            **{name: own[name] for name in ("method", "language")},
            **{"change": own["beyond"], "low": low, "high": high, "outcome": outcome},
            **{"exact": own["exact"], "random_exact": own["random_exact"]},
        }
    )


def _outcomes(more: pd.Series, less: pd.Series) -> list[str]:
    """What of each row is certain: "more", "less", or "open"."""
    return np.select([more, less], ["more", "less"], "open").tolist()
