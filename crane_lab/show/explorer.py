"""A table of which a reader chooses the rows, on a page without a server.

All of it is on the page, once, as data; `book/_static/choice_view.js` makes the fields to choose by
and writes the rows, as text alone. Without scripts there is a plain table of the first choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML
from markupsafe import Markup

from crane_lab.show.foreign import as_attribute, as_data, as_html, marked_up, markup
from crane_lab.texts.visible import visible


def choice_view(
    table: pd.DataFrame,
    choices: Sequence[str],
    shown: Sequence[str],
    caption: str,
    first: Mapping[str, object] | None = None,
    above: Sequence[str] = (),
    languages: Mapping[str, str] | None = None,
    narrowed: Sequence[str] = (),
) -> HTML:
    """The rows of a table that have one value in each of the `choices`, which a reader can change.

    `shown`: the columns that are seen, the first of which names the row. `first`: column -> value,
    what is chosen at first (the first row's, where it says nothing). `above`: columns of which the
    choices decide, said once above the rows. `languages`: column of texts -> column with the code
    of the language each is in, "" if that is not known. `narrowed`: columns by which a reader can
    leave out rows; all are there at first, and those with "" in it always.

    Cells hold anything; all are shown as texts, as `figures.table` does, NaN as a dash.

    Raises ValueError for columns that are not there, without choices or columns to show, and if
    there is no row to show at first.
    """
    languages = dict(languages or {})
    used = list(dict.fromkeys([*choices, *narrowed, *above, *shown, *languages.values()]))
    if unknown := [x for x in [*used, *languages, *(first or {})] if x not in table.columns]:
        found = list(dict.fromkeys(unknown))
        raise ValueError(f"no columns {found}: the table has {list(table.columns)}")
    if not choices or not shown:
        raise ValueError("nothing to choose by, or nothing to show: name columns for both")
    if unchosen := [x for x in first or {} if x not in choices]:
        raise ValueError(f"{unchosen} cannot be chosen: expected columns of {list(choices)}")
    empty = {*languages.values(), *narrowed}
    columns = {x: _Column(table[x], "" if x in empty else "–") for x in used}
    of_first = _first_rows(table, {x: columns[x] for x in choices}, first or {})
    start = of_first[0]
    data = {
        "columns": [
            {"name": visible(name), "values": column.seen, "codes": column.codes}
            for name, column in columns.items()
        ],
        "choices": [used.index(x) for x in choices],
        "narrowed": [used.index(x) for x in narrowed],
        "above": [used.index(x) for x in above],
        "shown": [used.index(x) for x in shown],
        "languages": [used.index(languages[x]) if x in languages else None for x in used],
        "first": [columns[x].codes[start] for x in choices],
    }

    def cell(template: Markup, name: str, row: int) -> Markup:
        lang = Markup("")
        if name in languages:
            code = columns[languages[name]].text(row)
            lang = markup(' lang="{code}"', code=as_attribute(code))
        return template.format(lang=lang, text=as_html(columns[name].text(row), None))

    head, other = Markup('<th scope="row"{lang}>{text}</th>'), Markup("<td{lang}>{text}</td>")
    facts = [
        markup(
            '<p><span class="choice-name">{name}:</span> {fact}</p>',
            name=name,
            fact=cell(Markup("<span{lang}>{text}</span>"), name, start),
        )
        for name in above
    ]
    rows = [
        markup(
            "<tr>{cells}</tr>",
            cells=_joined(cell(other if i else head, x, row) for i, x in enumerate(shown)),
        )
        for row in of_first
    ]
    number = len(set(zip(*(columns[x].codes for x in choices), strict=True)))
    chosen = "; ".join(f"{x}: {columns[x].text(start)}" for x in choices)
    # "dataframe" is what the theme knows: in dark mode it lights the ground of all other outputs.
    return marked_up(
        markup(
            '<div class="choice-view">'
            '<div class="choice-fields" role="group" aria-label="Choose what is shown" hidden>'
            "</div>"
            '<p class="choice-alone">One of {number} choices ({chosen}); with scripts, any of them '
            "can be chosen here.</p>"
            '<div class="choice-said" aria-live="polite" aria-atomic="true">'
            "{facts}<p>{count}.</p></div>"
            '<div class="choice-rows"><table class="dataframe"><caption>{caption}</caption>'
            "<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
            '<script type="application/json">{data}</script>'
            "</div>",
            number=f"{number:,}",
            count="One row" if len(of_first) == 1 else f"{len(of_first)} rows",
            chosen=as_html(chosen, None),
            facts=_joined(facts),
            caption=as_html(caption, None),
            heads=_joined(markup('<th scope="col">{name}</th>', name=name) for name in shown),
            rows=_joined(rows),
            data=as_data(data),
        )
    )


class _Column:
    """A column's texts, each distinct one once, and which of them every row has."""

    def __init__(self, values: pd.Series[Any], missing: str) -> None:
        texts = [
            missing if gone else str(value)
            for value, gone in zip(values, values.isna(), strict=True)
        ]
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        self.codes = [places[text] for text in texts]
        self.seen = [visible(text) for text in places]

    def text(self, row: int) -> str:
        return self.seen[self.codes[row]]


def _first_rows(
    table: pd.DataFrame, choices: Mapping[str, _Column], first: Mapping[str, object]
) -> list[int]:
    """Places of the rows that are shown at first."""
    asked = pd.Series(True, index=range(len(table)))
    for name, value in first.items():
        asked &= (table[name] == value).to_numpy()
    if not asked.any():
        raise ValueError(f"no row to show at first: none of {len(table)} has {dict(first)}")
    start = int(asked.to_numpy().argmax())
    return [
        row
        for row in range(len(table))
        if all(own.codes[row] == own.codes[start] for own in choices.values())
    ]


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
