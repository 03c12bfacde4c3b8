"""LangSpec-F1 of drops that a reader moves, on a page without a server (notebook 04d).

The scores of a table like Table 1 and those of random masks are on the page, as data;
`book/_static/langspec_view.js` computes Eq. 3-5 from them, as `crane_core.metrics` does. Without
scripts there is a table of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from IPython.display import HTML
from markupsafe import Markup

from crane_core.metrics import EPSILON, LangSpecF1, langspec_f1
from crane_lab.show.foreign import as_data, marked_up, markup
from crane_lab.show.style import palette
from crane_lab.stages.comparisons import Nulls
from crane_lab.stages.outcomes import Reading
from crane_lab.stages.standing import ENOUGH
from crane_lab.texts.visible import visible


def random_scores(
    nulls: Nulls, seeds: pd.DataFrame, tasks: Mapping[str, str], languages: Iterable[str]
) -> dict[str, pd.DataFrame]:
    """Scores under random masks of the size of CRANE's set of each language, a column a language.

    `nulls`: of the table's rows. Where they have none, the table's own random masks (`seeds`, as
    `Scored` makes them) stand in. A language with an empty set has no row. `tasks` may have more
    languages than the run's `languages`.
    """
    tasks = {x: tasks[x] for x in languages}
    found = {}
    for x in tasks:
        null = nulls.get(("CRANE", x))
        if null is not None:
            found[x] = pd.DataFrame({y: null[task] for y, task in tasks.items()})
        else:
            own = seeds[seeds["mask_language"] == x] if len(seeds) else seeds
            found[x] = own.reindex(columns=list(tasks))
    return found


def langspec_view(
    table: pd.DataFrame,
    names: Mapping[str, str],
    random: Mapping[str, pd.DataFrame],
    reading: Reading,
) -> HTML:
    """Sliders for the drops of every language, and what LangSpec-F1 makes of them.

    Parameters
    ----------
    table : scores of the languages without a mask (the first row) and under masks, as
        `Scored.table` makes it; what can be started from. CRANE's first row is shown at first.
    names : language -> its name.
    random : language -> scores under random masks to hold a mask for it against, a column a
        language (`random_scores`).
    reading : how LangSpec-F1 is read at first.

    Raises ValueError for a table without masks, and what `langspec_f1` raises it for.
    """
    languages = list(names)
    original, *masks = table.to_dict("records")
    if not masks:
        raise ValueError("no masks to start from: the table has the unmasked model alone")
    before = {x: float(original[x]) for x in languages}
    label = [f"{row['method']} · {names[row['mask_language']]}" for row in masks]
    first = next((i for i, row in enumerate(masks) if row["method"] == "CRANE"), 0)
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
                    "after": [float(row[x]) for x in languages],
                }
                for name, row in zip(label, masks, strict=True)
            ],
            "nulls": [random[x][languages].to_numpy(float).tolist() for x in languages],
            "first": {"row": first, "how": reading.how, "relative": reading.relative},
        }
    )
    lines = []
    for name, row in zip(label, masks, strict=True):
        x, after = row["mask_language"], {y: float(row[y]) for y in languages}
        found = _f1(before, after, x, reading)
        null = [
            _f1(before, dict(zip(languages, one, strict=True)), x, reading).f1
            for one in random[x][languages].to_numpy(float).tolist()
        ]
        below = sum(value < found.f1 for value in null)
        numbers = [*found.drops.values(), found.precision, found.recall, found.f1]
        lines.append(
            markup(
                '<tr><th scope="row">{name}</th>{cells}<td>{below}</td></tr>',
                name=name,
                cells=Markup("").join(markup("<td>{n:.3f}</td>", n=number) for number in numbers),
                below=f"{below} of {len(null)}" if null else "–",
            )
        )
    heads = ["mask", *(f"drop of {names[x]}" for x in languages), "precision", "recall"]
    heads += ["LangSpec-F1", "random masks below"]
    # "dataframe" is what the theme knows: in dark mode it lights the ground of all other outputs.
    return marked_up(
        markup(
            '<div class="explorable langspec-view">'
            '<div class="explorable-fields" role="group" aria-label="The drops, and how they are '
            'read" hidden></div>'
            '<p class="explorable-said" aria-live="polite" aria-atomic="true">With scripts, the '
            "drops can be moved here.</p>"
            "<details open><summary>The masks to start from, as a table</summary>"
            '<div class="explorable-rows"><table class="dataframe"><thead><tr>{heads}</tr></thead>'
            "<tbody>{lines}</tbody></table></div></details>"
            '<p class="explorable-key">This view has {size:.0f} KB of data.</p>'
            '<script type="application/json">{data}</script></div>',
            heads=Markup("").join(markup('<th scope="col">{name}</th>', name=x) for x in heads),
            lines=Markup("").join(lines),
            size=len(data.encode()) / 1000,
            data=data,
        )
    )


def _f1(
    before: Mapping[str, float], after: Mapping[str, float], target: str, reading: Reading
) -> LangSpecF1:
    return langspec_f1(before, after, target, how=reading.how, relative=reading.relative)
