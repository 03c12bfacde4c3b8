"""Tables, figures and sentences of tasks under steering (notebook 16b).

`summary` and `cells` are those of `task_effects`, `success` that of
`steering_effects.success_by_language`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value, written_intervals
from crane_lab.stages.standing import FDR
from crane_lab.study.steered_tasks import FLOORS, TRANSLATION
from crane_lab.study.steering_effects import UNSTEERED
from crane_lab.texts.names import full_names


def tasks_figure(summary: pd.DataFrame) -> HTML:
    """How far each task's score moves, by whose neurons are added to and by method."""
    rows = summary.assign(
        **{name: 100 * summary[name] for name in ("change", "low", "high", "random")},
        row=[
            f"{task}, {whose}"
            for task, whose in zip(summary["task"], summary["whose"], strict=True)
        ],
    ).rename(columns={"method": "series", "change": "value", "random": "reference"})
    told = [
        (
            f"{row['row']}, {row['series']}: {row['value']:+.1f}, random {row['reference']:+.1f}",
            row["value"],
        )
        for row in rows.to_dict("records")
    ]
    label = "change of the score (points)"
    figure = figures.dot_ranges(
        {label: rows[["row", "series", "value", "low", "high", "reference"]]},
        zero=[label],
        reference_label="random neurons",
    )
    alt = in_short("Change of scores under steering, in points.", told, "steered_tasks.csv")
    return figures.show(figure, alt)


def items_in_words(scores: pd.DataFrame, inputs: Mapping[str, Any]) -> Markdown:
    """How much was asked, and beside how many random sets; `inputs` as they are recorded."""
    items = ", ".join(f"{as_markdown(task)} {n}" for task, n in inputs["items"].items())
    own = scores[scores["draw"] < 0].groupby("method", sort=False)["task"].agg(set)
    lacking = "".join(
        f" {as_markdown(str(method))}'s were not tried in {as_markdown(', '.join(sorted(rest)))}."
        for method, tasks in own.items()
        if (rest := set(inputs["items"]) - tasks)
    )
    draws = scores.loc[scores["draw"] >= 0, "draw"].nunique()
    named = ", ".join(as_markdown(str(name)) for name in own.index if name != UNSTEERED)
    return prose(
        f"Items in each language: {items}. Sets of {named}; beside each set and language "
        f"{draws} of random neurons.{lacking}"
    )


def tasks_table(summary: pd.DataFrame) -> Styler:
    """Every task's score untouched and steered, beside random neurons."""
    shown = summary[["task", "method", "whose"]].copy()
    shown["by chance"] = summary["task"].map(FLOORS)
    shown["untouched"], shown["score"] = summary["untouched"], summary["score"]
    shown["change"] = written_intervals(summary, "change", form="{:+.3f}")
    shown["q"], shown["random"] = summary["q"], summary["random"]
    shown["q beyond random"] = summary["ahead_q"]
    return figures.table(
        shown.rename(columns={"whose": "neurons of"}),
        "Scores from 0 to 1 (share of right answers; of translations, the mean of the sentences' "
        "chrF), means over pairs of tested and activated languages, with 95 % intervals for other "
        "items and, of nli, other trainings; random is the change under random neurons, of which "
        f"there are {summary['sets'].min()} to {summary['sets'].max()} sets in a row",
        {
            **dict.fromkeys(("by chance", "untouched", "score"), "{:.3f}"),
            "random": "{:+.3f}",
            **dict.fromkeys(("q", "q beyond random"), p_value),
        },
    )


def task_cells_table(cells: pd.DataFrame) -> Styler:
    """Change by task, method and tested language, a column for each activated one."""
    rows = cells.assign(
        told=[
            f"{row['change']:+.2f}{'*' if row['q'] <= FDR else ''} "
            f"[{row['low']:+.2f}, {row['high']:+.2f}] ({row['random']:+.2f})"
            for row in cells.to_dict("records")
        ]
    )
    wide = rows.pivot(
        index=["task", "method", "language", "untouched"], columns="activated", values="told"
    )
    order = list(dict.fromkeys(cells["activated"]))
    names = full_names(order)
    shown = wide[order].rename(columns=names).reset_index()
    return figures.table(
        shown.rename(columns={"language": "tested"}),
        "Change of the score by whose neurons are added to, with 95 % for other items (and "
        "trainings), and in round brackets under random neurons; "
        f"* certainly a change, at a false-discovery rate of {FDR:.0%} over all cells, whatever "
        "random neurons do",
        {"untouched": "{:.2f}"},
    )


def translation_table(corpora: pd.DataFrame, cells: pd.DataFrame) -> Styler:
    """What translations are worth as a whole, 0 to 100, and how far their sentences move."""
    keys = ["method", "activated", "language"]
    points = cells[cells["task"] == TRANSLATION].copy()
    points[["change", "low", "high", "random"]] *= 100
    moved = points.assign(told_change=written_intervals(points, "change", form="{:+.1f}"))
    shown = corpora.merge(moved[[*keys, "told_change", "random"]], on=keys, how="left")
    shown["activated"] = shown["activated"].replace("", "nothing")
    return figures.table(
        shown[[*keys, "chrf", "bleu", "told_change", "random", "told"]]
        .fillna({"told_change": "–"})
        .rename(
            columns={
                "language": "into",
                "activated": "neurons of",
                "told_change": "change of the sentences' chrF",
                "random": "by random neurons",
                "told": "in that language",
            }
        ),
        "Translations from English as a whole, by sacrebleu (BLEU cuts Chinese into characters): "
        "chrF and BLEU from 0 to 100; the change of the sentences' mean chrF, with 95 % for other "
        "sentences, and what random neurons change it by; and the share that is in the language "
        "asked for at all",
        {
            **{"chrf": "{:.1f}", "bleu": "{:.1f}"},
            **{"by random neurons": "{:+.1f}", "in that language": "{:.2f}"},
        },
    )


def tasks_in_words(summary: pd.DataFrame) -> Markdown:
    """Which changes are certain, and which of them random neurons do not bring about."""
    lines = []
    for (method, whose), own in summary.groupby(["method", "whose"], sort=False):
        sure = own[own["q"] <= FDR]
        told = [
            f"{row['task']} {100 * row['change']:+.1f} points ({100 * row['random']:+.1f} under "
            "random neurons" + (", which is certainly different)" if row["ahead_q"] <= FDR else ")")
            for row in sure.to_dict("records")
        ]
        said = "; ".join(told) if told else "no certain change"
        lines.append(f"- {as_markdown(str(method))}, neurons of {whose} language: {said}.")
    return prose("\n".join(lines))


def success_table(success: pd.DataFrame) -> Styler:
    """Whether languages that are known better, or are related, are reached more often."""
    return figures.table(
        success[["method", "targets", "known_rho", "known_q", "kin_rho", "kin_q"]].rename(
            columns={
                "known_rho": "with nats per paragraph",
                "known_q": "q",
                "kin_rho": "with distance in the family tree",
                "kin_q": "q of that",
            }
        ),
        "Rank correlations of what adding gains over the untouched model, in the share of answers "
        "in the target: over targets, with what the model needs for the same paragraphs in them; "
        "over pairs of languages, with kinship (negative: more is gained for languages that are "
        "known well, or between related ones)",
        {
            **dict.fromkeys(
                ("with nats per paragraph", "with distance in the family tree"), "{:+.2f}"
            ),
            **dict.fromkeys(("q", "q of that"), p_value),
        },
    )


def known_table(known: pd.DataFrame) -> Styler:
    """How well the model knows each language."""
    names = full_names(list(known["language"]))
    return figures.table(
        known.assign(language=[names[x] for x in known["language"]]).sort_values("nats"),
        "What the same paragraphs take in each language: nats and tokens, mean per paragraph",
        {"nats": "{:.0f}", "tokens": "{:.1f}"},
    )
