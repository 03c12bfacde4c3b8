"""Table 1 at a budget that a reader chooses, on a page without a server (notebook 04d).

All budgets are on the page, as rows of one table, of which `book/_static/budget_view.js` shows
those of one budget, beside curves over all of them. Without scripts there are all rows, and a
picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from markupsafe import Markup

from crane_lab.show import explorable, figures
from crane_lab.show.curves import Line
from crane_lab.show.foreign import as_data, as_markdown, marked_up, markup, prose
from crane_lab.show.style import QUIET, SERIES, palette, picture
from crane_lab.study.task_budgets import COMPARED, MEASURED, RANDOM
from crane_lab.texts.visible import visible

#: Names of what is measured, and whether it is a loss, in nats per token.
LABELS = {
    "langspec_f1": "LangSpec-F1",
    "own_drop": "drop of the masked language",
    "other_drop": "largest drop of another language",
    "own_loss": "added loss, masked language",
    "other_loss": "added loss, most hit other",
    "difference": "added loss, masked less most hit other",
}
#: Methods differ in more than their colour: shapes, and what looks like them in a text.
_SHAPES = {"circle": "●", "square": "■", "triangle": "▲"}
_HEADS = ("neurons", "mask for", "method", "LangSpec-F1", "random masks below")
_SHOWN = ("own_drop", "other_drop", "own_loss", "other_loss")


def budget_view(found: pd.DataFrame, names: Mapping[str, str], total: int) -> HTML:
    """A slider for the number of neurons, with the rows of Table 1 and curves for that budget.

    Parameters
    ----------
    found : rows of `task_budgets.by_share`.
    names : language -> its name.
    total : neurons that the model has.

    Drops are shares of the score without a mask, losses nats per token. Raises ValueError for a
    table without rows.
    """
    if not len(found):
        raise ValueError("no budgets to choose from: the table has no rows")
    shares = sorted(found["share"].unique())
    methods = list(dict.fromkeys(found["method"]))
    colours = palette(["CRANE", "LAPE matched"])
    drawn = [colours.get(name, SERIES[0]) for name in methods]
    marks = list(zip(drawn, cycle(_SHAPES), strict=False))
    sizes = [int(found.loc[found["share"] == share, "n_neurons"].iloc[0]) for share in shares]
    by = {
        (row["share"], row["method"], row["mask_language"]): row for row in found.to_dict("records")
    }

    def values(of: str, x: str) -> list[list[float | None]]:
        return [[_number(by[s, name, x][of]) for s in shares] for name in methods]

    def null(of: str, x: str) -> list[list[float | None]]:
        at = [by[s, methods[0], x] for s in shares]
        ends = [f"{of}_null_{end}" for end in ("mean", "least", "most")]
        return [[_number(row[end]) for end in ends] for row in at]

    data = as_data(
        {
            "names": [visible(name) for name in names.values()],
            "sizes": sizes,
            "total": total,
            "first": min(2, len(shares) - 1),
            "methods": methods,
            "measures": [
                {
                    "label": LABELS[of],
                    "unit": _unit(of),
                    "loss": of.endswith("loss") or of == "difference",
                    "values": [values(of, x) for x in names],
                    "null": [null(of, x) for x in names],
                }
                for of in MEASURED
            ],
            "band": QUIET,
            "marks": [[colour, _SHAPES[shape]] for colour, shape in marks],
            "drawings": explorable.as_items(
                _panel(visible(name), sizes, marks) for name in names.values()
            ),
        }
    )
    lines = [
        line
        for i, share in enumerate(shares)
        for x in names
        for line in _lines(i, [by[share, name, x] for name in methods], visible(names[x]))
    ]
    figure = _picture(found, names)
    heads = [*_HEADS, *(LABELS[of] for of in _SHOWN)]
    # "dataframe" is what the theme knows: in dark mode it lights the ground of all other outputs.
    return marked_up(
        markup(
            '<div class="explorable budget-view">'
            '<div class="explorable-fields" role="group" aria-label="The budget, and what is '
            'drawn" hidden></div>'
            "{alone}"
            '<p class="explorable-said" aria-live="polite" aria-atomic="true"></p>{drawings}'
            '<div class="explorable-rows"><table class="dataframe"><caption>{caption}</caption>'
            "<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
            '<p class="explorable-key">In brackets: 95 % over items; for random masks, the '
            "smallest and the largest. {weight}</p>"
            '<script type="application/json">{data}</script></div>',
            alone=explorable.alone(
                "All budgets, one below the other; with scripts, one can be chosen here.", figure
            ),
            drawings=explorable.places(f"{visible(name)} by budget" for name in names.values()),
            caption="Table 1 by budget: drops are shares of the score without a mask, losses nats "
            "per token",
            heads=Markup("").join(markup('<th scope="col">{name}</th>', name=x) for x in heads),
            lines=Markup("").join(lines),
            weight=explorable.weight(data, figure, *lines),
            data=data,
        )
    )


def _unit(of: str) -> str:
    if of == "langspec_f1":
        return LABELS[of]
    return "nats per token" if of.endswith("loss") or of == "difference" else "share of the score"


def _panel(name: str, sizes: Sequence[int], marks: Sequence[tuple[str, str]]) -> explorable.Drawing:
    """Curves of every method by budget, over the band of random masks; a mark at one budget."""
    reach = (max(sizes[0], 1) / 1.15, max(sizes[-1], 1) * 1.15)
    made = explorable.drawing(
        "neurons", "", high=300, title=name, x_axis_type="log", x_range=reach,
        y_range=explorable.moving("values"),
    )  # fmt: skip
    made.yaxis.name = "axis"
    explorable.ticks(made.xaxis[0], {size: str(size) for size in sizes})
    random = explorable.source("random", "x", "least", "most")
    made.varea("x", "least", "most", source=random, color=QUIET, alpha=0.35)
    for i, (colour, shape) in enumerate(marks):
        own = explorable.source(f"method {i}", "x", "y")
        made.line("x", "y", source=own, color=colour, line_width=2)
        made.scatter("x", "y", source=own, color=colour, size=8, marker=shape)
    made.add_layout(explorable.span("budget", "height"))
    return made


def _picture(found: pd.DataFrame, names: Mapping[str, str]) -> Markup:
    """LangSpec-F1 of every method by budget, over the band of random masks."""
    panels: dict[str, dict[str, Line]] = {}
    for x, own in found.groupby("mask_language", sort=False):
        lines = panels.setdefault(names[str(x)], {})
        for method, of in own.groupby("method", sort=False):
            lines[str(method)] = of["n_neurons"], of["langspec_f1"]
        if own["null_masks"].any():
            ends = (of[f"langspec_f1_null_{end}"] for end in ("mean", "least", "most"))
            lines[RANDOM] = of["n_neurons"], *ends
    return picture(
        figures.curves(panels, "neurons", "LangSpec-F1", xscale="log"),
        alt="LangSpec-F1 by the number of masked neurons, a panel per masked language and a curve "
        "per method; random masks as a curve of their mean, in a band from the smallest to the "
        "largest. The numbers are in the table.",
    )


def _lines(place: int, rows: list[dict[Any, Any]], name: str) -> list[Markup]:
    """The rows of the table for a budget and a language: of every method, then random masks'."""
    found = []
    for row in rows:
        low, high = row["langspec_f1_low"], row["langspec_f1_high"]
        cells = [
            str(row["n_neurons"]),
            name,
            f"{row['langspec_f1']:.3f} [{low:.3f}, {high:.3f}]",
            f"{row['langspec_f1_null_below']} of {row['null_masks']}",
            *(_text(of, row[of]) for of in _SHOWN),
        ]
        found.append(_line(place, row["method"], cells))
    first = rows[0]

    def random(of: str) -> str:
        ends = [f"{of}_null_{end}" for end in ("mean", "least", "most")]
        mean, least, most = (_text(of, first[end]) for end in ends)
        return f"{mean} [{least}, {most}]"

    if first["null_masks"]:
        cells = [str(first["n_neurons"]), name, random("langspec_f1"), "–"]
        found.append(_line(place, RANDOM, [*cells, *(random(of) for of in _SHOWN)]))
    return found


def _line(place: int, method: str, cells: list[str]) -> Markup:
    before, rest = cells[:2], cells[2:]
    return markup(
        '<tr data-budget="{place}">{before}<th scope="row">{method}</th>{rest}</tr>',
        place=place,
        before=Markup("").join(markup("<td>{cell}</td>", cell=cell) for cell in before),
        method=method,
        rest=Markup("").join(markup("<td>{cell}</td>", cell=cell) for cell in rest),
    )


def _text(of: str, value: float) -> str:
    if of == "langspec_f1":
        return f"{value:.3f}"
    shown = f"{value:+z.3f}" if of.endswith("loss") else f"{value:+z.1%}".replace("%", " %")
    return shown.replace("-", "−")


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 6)


def budgets_in_words(found: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """Of how many masks each method is beyond all random ones, by LangSpec-F1 and by loss."""
    sizes = sorted(found["n_neurons"].unique())
    said = [
        f"From {sizes[0]} to {sizes[-1]} neurons, in {len(names)} languages, each mask beside "
        f"{int(found['null_masks'].iloc[0])} random masks of its size out of all layers:\n"
    ]
    for name, own in found.groupby("method", sort=False):
        beyond = {
            of: int((own[f"{of}_null_below"] == own["null_masks"]).sum())
            for of in ("langspec_f1", "difference")
        }
        said.append(
            f"- **{as_markdown(name)}**: {beyond['langspec_f1']} of {len(own)} masks have a larger "
            f"LangSpec-F1 than all of them, {beyond['difference']} a larger loss of their own "
            "language beyond the most hit other."
        )
    return prose("\n".join(said))


def no_budgets() -> Markdown:
    """What stands there for a model that no budgets are shipped of."""
    return prose(f"Budgets of {', '.join(COMPARED)} are shipped for the testbed's model alone.")
