"""How the read-outs go together: held-out loss, accuracy, grades, LangSpec-F1 (notebook 09c)."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler
from scipy.stats import spearmanr

from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.study.calibration import kinds_of

#: Added losses that are told apart, in nats per token: where each class begins.
CLASSES = (float("-inf"), 0.05, 0.2, 0.5, 1.0)


def _lost(found: pd.DataFrame, kind: str) -> pd.Series:
    return 100 * (found[f"{kind}_before"] - found[kind])


def loss_and_accuracy(found: pd.DataFrame, names: Mapping[str, str]) -> HTML:
    """Accuracy lost against loss added, a dot per mask; `found` of `calibration.readouts`."""
    shown, titles, told = {}, {}, []
    for kind in kinds_of(found):
        for x, name in names.items():
            own = found[found["language"] == x]
            shown[f"{kind}_{x}"] = (own["added_loss"], _lost(own, kind))
            titles[f"{kind}_{x}"] = f"{kind}, {name}"
            told.append(f"{kind} {name} up to {_lost(own, kind).max():.0f} points")
    return figures.show(
        figures.scatter(
            shown,
            "added held-out loss (nats per token)",
            "accuracy lost (points)",
            titles,
            log=False,
        ),
        alt="Accuracy lost against held-out loss added, a dot per mask, by task and language. "
        + "; ".join(told)
        + ".",
    )


def by_class(found: pd.DataFrame) -> Styler:
    """What masks cost in accuracy, by what they add to the loss of the same language."""
    edges = [*CLASSES, float("inf")]
    place = pd.cut(found["added_loss"], edges, right=False, labels=False)
    rows = []
    for number, own in found.groupby(place):
        low, high = edges[int(number)], edges[int(number) + 1]
        label = f"below {high:g}" if number == 0 else f"{low:g} and more"
        if 0 < int(number) < len(CLASSES) - 1:
            label = f"{low:g} to {high:g}"
        row = {"added loss (nats per token)": label, "masks × languages": len(own)}
        row |= {f"{kind}, points lost": _lost(own, kind).mean() for kind in kinds_of(found)}
        masked = own[own["language"] == own["mask_language"]]
        row["LangSpec-F1 of its mask"] = masked["langspec_f1"].mean()
        rows.append(row)
    digits = {c: "{:.1f}" for c in rows[0] if "points" in c} | {"LangSpec-F1 of its mask": "{:.2f}"}
    return figures.table(
        pd.DataFrame(rows),
        "What masks cost in accuracy, by what they add to the held-out loss of the same language; "
        "LangSpec-F1 where that is the masked one",
        digits,
    )


def in_words(found: pd.DataFrame, order: str, size: int, names: Mapping[str, str]) -> Markdown:
    """How closely accuracy follows loss, and what the first `size` neurons of an order do to it."""
    kinds = kinds_of(found)
    rho = ", ".join(
        f"{spearmanr(found['added_loss'], _lost(found, kind)).statistic:.2f} for {kind}"
        for kind in kinds
    )
    lines = [f"- Loss added and accuracy lost go together with rank correlation {rho}."]
    own = found[
        (found["order"] == order)
        & (found["n_neurons"] == size)
        & (found["language"] == found["mask_language"])
    ]
    for row in own.to_dict("records"):
        costs = ", ".join(
            f"{100 * (row[f'{kind}_before'] - row[kind]):.1f} points of {kind}" for kind in kinds
        )
        graded = (
            f", and its open answers are graded {row['grade']:.1f} instead of "
            f"{row['grade_before']:.1f}"
            if not pd.isna(row.get("grade"))
            else ""
        )
        lines.append(
            f"- {as_markdown(order)}, {size} neurons, {as_markdown(names[row['language']])}: "
            f"{row['added_loss']:+.2f} nats, {costs}, LangSpec-F1 {row['langspec_f1']:.2f}{graded}."
        )
    return prose("\n".join(lines))
