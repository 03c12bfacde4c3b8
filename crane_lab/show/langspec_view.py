"""LangSpec-F1 of drops that a reader moves, on a page without a server (notebook 04d).

The scores of a table like Table 1 and those of random masks of every row's own size are on the
page, as data;
`book/_static/langspec_view.js` computes Eq. 3-5 from them, as `crane_core.metrics` does. Without
scripts there are a picture and a table of the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from bokeh.transform import dodge
from IPython.display import HTML
from markupsafe import Markup

from crane_core.metrics import EPSILON, LangSpecF1, langspec_f1
from crane_lab.show import explorable, figures
from crane_lab.show.foreign import as_data, marked_up, markup
from crane_lab.show.style import INK, NOTE, minus, palette, picture
from crane_lab.stages.comparisons import Nulls
from crane_lab.stages.outcomes import Reading
from crane_lab.stages.standing import ENOUGH
from crane_lab.texts.visible import visible

#: Whose sets random masks are as large as, where a row has none of its own.
_CRANE = "CRANE"
#: What is drawn, in the order of the script's `MEASURES`.
_MEASURES = {"precision": "Precision", "recall": "Recall", "f1": "LangSpec-F1"}


def random_scores(
    nulls: Nulls, seeds: pd.DataFrame, tasks: Mapping[str, str]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Scores under random masks of the size of each method's set of each language.

    `nulls`: of the table's rows. Where CRANE has none, the table's own random masks (`seeds`, as
    `Scored` makes them) stand in, which are of its size. CRANE has all languages; one with an empty
    set has no row.

    Returns (method, masked language) -> a row per mask and a column per language.
    """
    found = {
        (method, x): pd.DataFrame({y: null[task] for y, task in tasks.items()})
        for (method, x), null in nulls.items()
        if x in tasks
    }
    for x in tasks:
        if (_CRANE, x) not in found:
            own = seeds[seeds["mask_language"] == x] if len(seeds) else seeds
            found[_CRANE, x] = own.reindex(columns=list(tasks))
    return found


def langspec_view(
    table: pd.DataFrame,
    names: Mapping[str, str],
    random: Mapping[tuple[str, str], pd.DataFrame],
    reading: Reading,
) -> HTML:
    """Sliders for the drops of every language, and what LangSpec-F1 makes of them.

    Parameters
    ----------
    table : scores of the languages without a mask (the first row) and under masks, as
        `Scored.table` makes it; what can be started from. CRANE's first row is shown at first.
    names : language -> its name.
    random : what a mask is held against, of `random_scores`: random masks of its own size, or of
        CRANE's if its method has none.
    reading : how LangSpec-F1 is read at first.

    Raises ValueError for a table without masks, and what `langspec_f1` raises it for.
    """
    languages = list(names)
    original, *masks = table.to_dict("records")
    if not masks:
        raise ValueError("no masks to start from: the table has the unmasked model alone")
    before = {x: float(original[x]) for x in languages}
    label = [f"{row['method']} · {names[row['mask_language']]}" for row in masks]
    first = next((i for i, row in enumerate(masks) if row["method"] == _CRANE), 0)
    sized = [_sized(random, row["method"], row["mask_language"]) for row in masks]
    methods = list(dict.fromkeys([_CRANE, *sized]))
    null_of = {
        key: own[languages].to_numpy(float).tolist()
        for key, own in random.items()
        if key[0] in methods and key[1] in languages
    }
    colours = palette(languages)
    data = as_data(
        {
            "names": [visible(names[x]) for x in languages],
            "colours": [colours[x] for x in languages],
            "before": list(before.values()),
            "epsilon": EPSILON,
            "enough": ENOUGH,
            "rows": [
                {
                    "name": visible(name),
                    "target": languages.index(row["mask_language"]),
                    "sized": methods.index(method),
                    "after": [float(row[x]) for x in languages],
                }
                for name, row, method in zip(label, masks, sized, strict=True)
            ],
            "methods": [visible(method) for method in methods],
            "nulls": [[null_of.get((method, x)) for x in languages] for method in methods],
            "first": {"row": first, "how": reading.how, "relative": reading.relative},
            "drawings": explorable.as_items([_drawing()]),
        }
    )
    lines, drawn = [], []
    for name, row, method in zip(label, masks, sized, strict=True):
        x, after = row["mask_language"], {y: float(row[y]) for y in languages}
        found = _f1(before, after, x, reading)
        null = [
            _f1(before, dict(zip(languages, one, strict=True)), x, reading)
            for one in null_of[method, x]
        ]
        drawn.append((name, x, found, null))
        below = sum(one.f1 < found.f1 for one in null)
        size = "" if method == row["method"] else f", {method}'s size"
        numbers = [*found.drops.values(), found.precision, found.recall, found.f1]
        lines.append(
            markup(
                '<tr><th scope="row">{name}</th>{cells}<td>{below}</td></tr>',
                name=name,
                cells=Markup("").join(
                    markup("<td>{n}</td>", n=minus(f"{n:z.3f}")) for n in numbers
                ),
                below=f"{below} of {len(null)}{size}" if null else "–",
            )
        )
    figure = _picture(drawn, names)
    heads = ["mask", *(f"drop of {names[x]}" for x in languages), "precision", "recall"]
    heads += ["LangSpec-F1", "random masks of its size below"]
    # "dataframe" is what the theme knows: in dark mode it lights the ground of all other outputs.
    return marked_up(
        markup(
            '<div class="explorable langspec-view">'
            '<div class="explorable-fields" role="group" aria-label="The drops, and how they are '
            'read" hidden></div>'
            "{alone}"
            '<p class="explorable-said" aria-live="polite" aria-atomic="true"></p>{drawings}'
            "<details open><summary>The masks to start from, as a table</summary>"
            '<div class="explorable-rows"><table class="dataframe"><thead><tr>{heads}</tr></thead>'
            "<tbody>{lines}</tbody></table></div></details>"
            '<p class="explorable-key">{weight}</p>'
            '<script type="application/json">{data}</script></div>',
            heads=Markup("").join(markup('<th scope="col">{name}</th>', name=x) for x in heads),
            alone=explorable.alone("With scripts, the drops can be moved here.", figure),
            drawings=explorable.places([_ALT]),
            lines=Markup("").join(lines),
            weight=explorable.weight(data, figure),
            data=data,
        )
    )


_ALT = (
    "Bars of precision, recall and LangSpec-F1 from 0 to 1, with a mark below each for every "
    "random mask; the numbers are in the text."
)


def _picture(
    masks: Sequence[tuple[str, str, LangSpecF1, Sequence[LangSpecF1]]], names: Mapping[str, str]
) -> Markup:
    """Every mask's measures, beside what 19 in 20 random masks stay below.

    `masks`: name, masked language, what the mask has, and what random ones have.
    """
    panels = {
        name: pd.DataFrame(
            {
                "row": mask,
                "series": x,
                "value": getattr(found, measure),
                "reference": np.quantile([getattr(one, measure) for one in null], 0.95)
                if len(null) >= ENOUGH
                else np.nan,
            }
            for mask, x, found, null in masks
        )
        for measure, name in _MEASURES.items()
    }
    return picture(
        figures.dot_ranges(
            panels, names=names, reference_label="19 in 20 random masks are below", same_scale=True
        ),
        alt="Precision, recall and LangSpec-F1 of every mask as dots, with a tick that 19 in 20 "
        "random masks of its size stay below; the numbers are in the table.",
    )


def _drawing() -> explorable.Drawing:
    """A bar for each measure, below it the marks of random masks and of where 19 in 20 lie."""
    made = explorable.drawing("", "", high=220, x_range=(0, 1.25), y_range=(-2.6, 0.5))
    made.xaxis.ticker = [0, 0.25, 0.5, 0.75, 1]
    explorable.ticks(made.yaxis[0], {-i: name for i, name in enumerate(_MEASURES.values())})
    made.ygrid.grid_line_color = None
    bars = explorable.source("bars", "y", "value", "said", "colour")
    made.hbar("y", 0.36, "value", left=0, source=bars, color="colour")
    made.text(  # right of all bars, where no mark crosses it
        1.04, "y", "said", source=bars, text_baseline="middle", text_color=INK,
        text_font_size="13px",
    )  # fmt: skip
    for name, colour, width, alpha, low, high in (
        ("random", NOTE, 1.5, 0.5, -0.38, -0.24),
        ("limits", INK, 2.5, 1, -0.42, 0.2),
    ):
        marks = explorable.source(name, "x", "y")
        made.segment(
            "x", dodge("y", low), "x", dodge("y", high), source=marks,
            color=colour, line_width=width, alpha=alpha,
        )  # fmt: skip
    return made


def _sized(random: Mapping[tuple[str, str], pd.DataFrame], method: str, x: str) -> str:
    """The method of whose set for a language a mask's random ones have the size."""
    return method if (method, x) in random else _CRANE


def _f1(
    before: Mapping[str, float], after: Mapping[str, float], target: str, reading: Reading
) -> LangSpecF1:
    return langspec_f1(before, after, target, how=reading.how, relative=reading.relative)
