"""Tables, figures and sentences of a task that was learned in one language (`study.taught`).

`effects` is everywhere the table of `taught_effects.taught_effects`; `names` is language -> its
name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.testbed.unseen import LABELS

Items = Mapping[str, Sequence[Mapping[str, Any]]]


def nli_items_table(items: Items, number: int = 0) -> Styler:
    """One item of `nli` in every language."""
    rows = [
        {
            "language": x,
            "premise": own[number]["premise"],
            "hypothesis": own[number]["hypothesis"],
            "label": LABELS[int(own[number]["label"])],
        }
        for x, own in items.items()
    ]
    return figures.table(pd.DataFrame(rows), "An item of NLI in every language")


def qa_items_table(items: Items, number: int = 0) -> Styler:
    """One item of `qa` in every language."""
    names = ("passage", "question", "answer")
    rows = [{"language": x, **{n: own[number][n] for n in names}} for x, own in items.items()]
    return figures.table(pd.DataFrame(rows), "A question with its passage in every language")


def levels_table(levels: Mapping[str, pd.DataFrame], chance: Mapping[str, float]) -> Styler:
    """How well each task is done after training, by language: `taught_effects.taught_levels`."""
    frame = pd.concat(levels, names=["task", None]).reset_index("task")
    frame["chance"] = frame["task"].map(dict(chance))
    return figures.table(
        frame,
        "Share of test items right after training in one language; range over trainings",
        dict.fromkeys(["score", "lowest", "highest", "chance"], "{:.3f}"),
    )


def effects_figure(effects: pd.DataFrame, names: Mapping[str, str], of: str) -> HTML:
    """Changes of the score with intervals over trainings, by method and value or tuned set."""
    own = effects[effects["language"] == of]
    value = own["set_to"].where(own["set_to"] != "", own["of"])
    shown = pd.DataFrame(
        {"row": value, "series": own["method"], "value": own["change"]}
        | {end: own[end] for end in ("low", "high")}
    )
    label = f"change of the share right, {names[of]}"
    told = "; ".join(
        f"{method}: {part['change'].min():+.3f} to {part['change'].max():+.3f}"
        for method, part in own.groupby("method", sort=False)
    )
    return figures.show(
        figures.dot_ranges({label: shown}, zero=[label]),
        alt=f"Changes by what neurons are set to or which are tuned, {names[of]}. {told}.",
    )


def taught_table(effects: pd.DataFrame, caption: str) -> Styler:
    """The rows that have random sets beside them, in numbers."""
    own = effects[effects["null_masks"] > 0]
    shown = own[["method", "of", "set_to", "language"]].rename(columns={"set_to": "set to"})
    shown["change"] = [
        f"{v:+.3f} [{low:+.3f}, {high:+.3f}]"
        for v, low, high in zip(own["change"], own["low"], own["high"], strict=True)
    ]
    for name, column in (
        ("random sets", "null_masks"),
        ("their mean", "null_mean"),
        ("percentile", "percentile"),
        ("q, larger", "q"),
        ("q, smaller", "q_low"),
    ):
        shown[name] = own[column].to_numpy()
    if (shown["set to"] == "").all():
        del shown["set to"]
    formats = {"their mean": "{:+.3f}", "percentile": "{:.0f}"}
    formats |= {"q, larger": "{:.3f}", "q, smaller": "{:.3f}"}
    return figures.table(shown, caption, formats)


def effects_in_words(effects: pd.DataFrame, level: float = 0.05) -> Markdown:
    """How many effects are beyond their trainings' noise, by method, and beyond random sets."""
    lines = []
    for method, own in effects.groupby("method", sort=False):
        better, worse = int((own["low"] > 0).sum()), int((own["high"] < 0).sum())
        line = (
            f"{as_markdown(method)}: of {len(own)} changes {better} are for the better and {worse} "
            "for the worse beyond the noise of training"
        )
        known = own[own["null_masks"] > 0]
        if len(known):
            beyond = int(((known["q"] <= level) | (known["q_low"] <= level)).sum())
            line += f"; {beyond} of the {len(known)} that have random sets lie beyond those"
        lines.append(f"- {line}.")
    return prose("\n".join(lines))
