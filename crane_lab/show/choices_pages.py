"""What notebook 08 shows of the sweep over choices: each table, figure and sentence from its rows.

`sweep` is everywhere what `choices.with_floor` returns: one row per choice, value and masked
language, beside what random masks of the same size score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, marked_up, markup, prose
from crane_lab.study import choices, summaries

#: Title of a panel -> the column of `sweep`, and where the same of random neurons stands.
MEASURES = {
    "neurons (% of all)": ("share", None),
    "Jaccard with the default": ("jaccard", "jaccard_chance"),
    "LangSpec-F1": ("langspec_f1", "langspec_f1_random"),
    "selectivity (nats)": ("selectivity", "selectivity_random"),
}
SIGNED = ["selectivity (nats)"]
RANDOM = "random neurons"
#: So many cases are listed one by one; of more only the number is told.
LISTED = 9


def choices_listed(names: Iterable[str]) -> str:
    """Choices by the names they have on a page, or "none"."""
    return ", ".join(choices.LABELS[name] for name in names) or "none"


def interval(frame: pd.DataFrame, measure: str, sign: str = "") -> list[str]:
    """A column of estimates with the interval from its `_low` and `_high`, as text."""
    columns = (frame[name] for name in (measure, f"{measure}_low", f"{measure}_high"))
    return [
        f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
        for value, low, high in zip(*columns, strict=True)
    ]


def origin(
    sweep: pd.DataFrame,
    made_with: Mapping[str, Any],
    differing: Sequence[str],
    again: pd.DataFrame | None = None,
) -> Markdown:
    """Where the numbers come from, and whether they hold for this run.

    Parameters
    ----------
    made_with : what the tables were made with.
    differing : the inputs that are not this run's, from `choices.differing_inputs`.
    again : `summaries.sets_again`, where nothing differs.
    """
    if differing or again is None:
        message = whose(differing)
    else:
        found = zip(again["n_neurons"], again["language"], strict=True)
        sizes = ", ".join(f"{n} ({as_markdown(x)})" for n, x in found)
        message = (
            f"Computed again on this machine: {sizes} neurons from {summaries.FEW} "
            "windows; equal to the shipped sets for "
            f"{int(again['equal'].sum())} of {len(again)} languages."
        )
    made = made_with["settings"]
    return prose(
        f"{message}\n\nThe sweep: {len(sweep[['choice', 'value']].drop_duplicates())} readings "
        f"of {sweep['choice'].nunique()} choices, for "
        f"{as_markdown(', '.join(made['languages']))}; default {made['n_samples']:,} windows of "
        f"{made['window']} tokens, {made['n_perplexity']} "
        "held-out windows per language, "
        f"{'all' if made['task_limit'] is None else made['task_limit']} items per task."
    )


def whose(differing: Sequence[str]) -> str:
    """Whether shipped results are of this run's model, texts and tasks."""
    if not differing:
        return "These results are of the model, the texts and the tasks of your run."
    return (
        "**These results are not those of your run.** They were made with another "
        + ", ".join(name.replace("_", " ") for name in differing)
        + " and say nothing about yours; set `recompute_choices`."
    )


def default_reading_table(sweep: pd.DataFrame) -> Styler:
    """The four read-outs of the default's own sets, language by language."""
    default = summaries.default_reading(sweep)
    return figures.table(
        pd.DataFrame(
            {
                "mask": default.index,
                "neurons": default["n_neurons"].to_numpy(),
                "share": default["share"].to_numpy(),
                "LangSpec-F1": interval(default, "langspec_f1"),
                "random masks (interpolated)": default["langspec_f1_random"].to_numpy(),
                "selectivity": interval(default, "selectivity", "+"),
                "random": default["selectivity_random"].to_numpy(),
            }
        ),
        "The default reading of every choice beside random masks that lie evenly in all layers, "
        "their means interpolated to the set's size (notebook 04: with the set's own layers)",
        {"share": "{:.1%}", "random masks (interpolated)": "{:.3f}", "random": "{:+.3f}"},
    )


def glance(sweep: pd.DataFrame) -> HTML:
    """For every choice the reference value of each read-out, and the span of all its values."""
    panels = {}
    for title, (column, _) in MEASURES.items():
        scale = 100 if column == "share" else 1
        groups = sweep.groupby(["choice", "mask_language"], sort=False)
        panels[title] = pd.DataFrame(
            [
                {
                    "row": choices.LABELS[str(choice)],
                    "series": x,
                    "value": scale * own.loc[own["reference"], column].iloc[0],
                    "low": scale * own[column].min(),
                    "high": scale * own[column].max(),
                }
                for (choice, x), own in groups
            ]
        )
    title = "Reference value (dot) and span over all values of each choice (line)"
    told = [
        (
            f"{choices.LABELS[str(choice)]}: Jaccard with the default {own['jaccard'].min():.2f} "
            f"to {own['jaccard'].max():.2f}, LangSpec-F1 {own['langspec_f1'].min():.2f} to "
            f"{own['langspec_f1'].max():.2f}, selectivity {own['selectivity'].min():+.2f} to "
            f"{own['selectivity'].max():+.2f}",
            own["langspec_f1"].max() - own["langspec_f1"].min(),
        )
        for choice, own in sweep.groupby("choice", sort=False)
    ]
    return figures.show(
        figures.dot_ranges(panels, zero=SIGNED, title=title),
        alt=in_short(
            "For each choice and language the span of four measures over its values.",
            told,
            "choices_sweep.csv",
            by="the span of LangSpec-F1",
        ),
    )


def departures_table(summary: pd.DataFrame) -> Styler:
    """`summaries.of_choices` as a table."""
    return figures.table(
        summary,
        "Departures from the reference value, averaged over languages, largest first",
        dict.fromkeys(summary.columns[2:], "{:.3f}"),
    )


def what_matters(sweep: pd.DataFrame) -> Markdown:
    """Which three choices matter most by the rule of the page, by other rules, and which do not."""
    found = choices.departures(sweep, "langspec_f1")
    largest = found.set_index("choice")["largest"]
    draw = largest["seed"]
    firsts = "; ".join(
        f"**{choices.LABELS[c]}** ({largest[c]:.3f}, {largest[c] / draw:.1f} times a new draw of "
        "windows)"
        for c in largest.index[:3]
    )
    by_mean = found.sort_values("typical", ascending=False)["choice"][:3]
    above, selective = (
        choices.departures(sweep, measure)["choice"][:3]
        for measure in ("langspec_f1_above", "selectivity")
    )
    return prose(
        f"By the rule the three that matter most are {firsts}.\n\n"
        f"- By the mean departure: {choices_listed(by_mean)}.\n"
        f"- Above random masks of the same size: {choices_listed(above)}.\n"
        f"- By selectivity: {choices_listed(selective)}.\n"
        f"- No more than a new draw of windows ({draw:.3f}): "
        f"{choices_listed(summaries.quiet_choices(found))}.\n"
        f"- Nothing at all: {choices_listed(largest.index[largest == 0])}."
    )


def read_out_panels(
    own: pd.DataFrame, row: str, measures: Mapping[str, tuple[str, str | None]] = MEASURES
) -> dict[str, pd.DataFrame]:
    """Some rows' read-outs as panels of `figures.dot_ranges`: values, intervals, random neurons.

    `row` is the column that names the rows; `measures` as `MEASURES`.
    """
    found = {}
    for title, (column, random) in measures.items():
        scale = 100 if column == "share" else 1
        table = pd.DataFrame(
            {"row": own[row], "series": own["mask_language"], "value": scale * own[column]}
        )
        if f"{column}_low" in own:
            table["low"], table["high"] = own[f"{column}_low"], own[f"{column}_high"]
        if random is not None:
            table["reference"] = own[random]
        found[title] = table
    return found


def choices_table(sweep: pd.DataFrame) -> Styler:
    """A row per choice: how far it moves LangSpec-F1 and sets, and how often masks are clear."""
    largest = choices.departures(sweep, "langspec_f1").set_index("choice")["largest"]
    rows = []
    for name, own in sweep.groupby("choice", sort=False):
        row = {
            "choice": choices.LABELS[str(name)],
            "largest departure": f"{largest[name]:.3f}",
            "in new draws": f"{largest[name] / largest['seed']:.1f}",
            "least overlap with the default": "",
            "Jaccard (random)": "",
            "own language most": f"{(own['verdict'] == 'larger').sum()} of {len(own)}",
        }
        least = least_overlap(own)
        if least is not None:
            row["least overlap with the default"] = f"{least['value']}, {least['mask_language']}"
            row["Jaccard (random)"] = f"{least['jaccard']:.2f} ({least['jaccard_chance']:.2f})"
        rows.append(row)
    return figures.table(pd.DataFrame(rows), "What each choice amounts to")


def least_overlap(own: pd.DataFrame) -> dict[str, Any] | None:
    """The row of one choice whose set overlaps least with the default's, if one is known."""
    other = own[~own["reference"]].dropna(subset="jaccard")
    if not len(other):
        return None
    return {str(k): v for k, v in other.sort_values("jaccard", kind="stable").iloc[0].items()}


def each_choice(sweep: pd.DataFrame) -> list[HTML]:
    """`choice` of all choices, in the order of the sweep."""
    return [choice(sweep, str(name)) for name in sweep["choice"].unique()]


def choice(sweep: pd.DataFrame, name: str) -> HTML:
    """What one choice amounts to, in sentences, and its figure, the reference starred; folded."""
    own = sweep[sweep["choice"] == name].copy()
    own["shown"] = own["value"] + np.where(own["reference"], " ★", "")
    told = [
        (
            f"{r['shown']}: {r['mask_language']} {r['n_neurons']} neurons, Jaccard "
            f"{r['jaccard']:.2f}, LangSpec-F1 {r['langspec_f1']:.2f}, selectivity "
            f"{r['selectivity']:+.3f}",
            r["langspec_f1"],
        )
        for r in own.to_dict("records")
    ]
    label = choices.LABELS[name]
    figure = figures.dot_ranges(
        read_out_panels(own, "shown"), zero=SIGNED, reference_label=RANDOM, title=label.capitalize()
    )
    lead = f"Four measures under each value of {label}, by language."
    alt = in_short(lead, told, "choices_sweep.csv", by="LangSpec-F1")
    told_in_words = marked_up(markup("<p>{text}</p>", text=choice_in_words(sweep, name)))
    return figures.folded(label.capitalize(), told_in_words, figures.show(figure, alt))


def choice_in_words(sweep: pd.DataFrame, name: str) -> str:
    """How far a choice moves LangSpec-F1 and the sets, and whether its masks are selective."""
    own = sweep[sweep["choice"] == name]
    largest = choices.departures(sweep, "langspec_f1").set_index("choice")["largest"]
    text = (
        f"Largest departure of LangSpec-F1: {largest[name]:.3f} "
        f"({largest[name] / largest['seed']:.1f} times a new draw of windows)."
    )
    least = least_overlap(own)
    if least is not None:
        text += (
            f" Least overlap with the default: {least['value']}, {least['mask_language']}, Jaccard "
            f"{least['jaccard']:.2f} (random {least['jaccard_chance']:.2f})."
        )
    clear = own[own["verdict"] == "larger"]
    text += (
        f" The mask clearly hurts its own language most in {len(clear)} of {len(own)} cases by "
        "held-out loss and its interval over windows"
        f"{f': {_cases(clear)}' if 0 < len(clear) <= LISTED else ''}."
    )
    empty = own[own["n_neurons"] == 0]
    if len(empty):
        text += f" No neuron at all is selected under {_cases(empty)}."
    return text


def _cases(rows: pd.DataFrame) -> str:
    return ", ".join(f"{r['value']} ({r['mask_language']})" for r in rows.to_dict("records"))


def under_rules(rankings: Mapping[str, pd.Series]) -> tuple[Styler, Markdown]:
    """The first three choices under several rules, and which of them all rules agree on.

    `rankings`: rule -> how much each choice matters by it.
    """
    firsts = {
        rule: [str(c) for c in found.sort_values(ascending=False).index[:3]]
        for rule, found in rankings.items()
    }
    table = figures.table(
        pd.DataFrame(
            [
                {"rule": rule, **{str(i + 1): choices.LABELS[c] for i, c in enumerate(best)}}
                for rule, best in firsts.items()
            ]
        ),
        f"The three choices that matter most under {len(firsts)} rules",
    )
    first, *others = firsts.values()
    survive = [c for c in first if all(c in best for best in others)]
    return table, prose(
        f"Among the first three under all {len(firsts)} rules: {choices_listed(survive)}."
    )


def choices_conclusions(sweep: pd.DataFrame) -> Markdown:
    """What the page found, as a list."""
    found = choices.departures(sweep, "langspec_f1")
    default = summaries.default_reading(sweep)
    every = [
        f"{choices.LABELS[str(choice)]} = {value}"
        for (choice, value), own in sweep.groupby(["choice", "value"], sort=False)
        if (own["verdict"] == "larger").all()
    ]
    lines = [
        f"The three choices that move LangSpec-F1 most are {choices_listed(found['choice'][:3])}; "
        f"{choices_listed(summaries.quiet_choices(found))} move it no more than drawing other "
        "windows does.",
        "By held-out loss and its interval over windows (no random masks have every reading's "
        "layers) the default's masks clearly hurt their own language most in "
        f"{int((default['verdict'] == 'larger').sum())} of {len(default)} languages; over all "
        f"readings in {int((sweep['verdict'] == 'larger').sum())} of {len(sweep)} cases. "
        + (
            f"Readings under which they do so in every language: {'; '.join(every)}."
            if every
            else "Under no reading do they do so in every language: no choice we tried turns the "
            "result around."
        ),
    ]
    return prose("\n".join(f"- {line}" for line in lines))
