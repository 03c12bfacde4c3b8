"""Figures and tables have a number, page by page, and a list."""

import json

from markupsafe import Markup

from crane_lab.runs.numbering import Shown, list_of, with_numbers

PICTURE = (
    '<div style="overflow-x:auto"><img src="data:image/png;base64,AA" '
    'alt="A 0.5 &lt;b&gt;. Largest: c."></div>'
)
TABLE = "<table><caption>What <i>it</i> is</caption></table>"


def notebook(*outputs: str, tags: tuple[str, ...] = ()) -> str:
    cells = [
        {"metadata": {"tags": list(tags)}, "outputs": [{"data": {"text/html": html}}]}
        for html in outputs
    ]
    return json.dumps({"cells": [*cells, {"metadata": {}, "source": "# One"}]})


def html(text: str) -> list[str]:
    cells = json.loads(text)["cells"]
    return [output["data"]["text/html"] for cell in cells for output in cell.get("outputs", [])]


def test_figures_and_tables_are_counted_apart_through_the_page() -> None:
    text, found = with_numbers(notebook(TABLE + PICTURE, TABLE), "04b")
    names = [one.name for one in found]
    assert names == ["Table 4b.1", "Figure 4b.1", "Table 4b.2"]
    first, second = html(text)
    assert '<caption><span class="numbered" id="table-4b-1">Table 4b.1.</span> What' in first
    assert first.index('id="figure-4b-1"') < first.index("<img")
    assert "</span> A 0.5 &lt;b&gt;.</p>" in first and 'alt="A 0.5 &lt;b&gt;. Largest' in first
    assert "Table 4b.2." in second and found[0].title == Markup("What <i>it</i> is")
    assert [with_numbers(notebook(TABLE), page)[1][0].name for page in ("00", "00b", "12")] == [
        "Table 0.1",
        "Table 0b.1",
        "Table 12.1",
    ]


def test_what_is_tried_and_what_is_not_shown_has_no_number() -> None:
    tried = f'<div class="explorable choice-view">{TABLE}{PICTURE}</div>'
    for text in (notebook(tried), notebook(TABLE, tags=("remove-cell",)), notebook("<p>x</p>")):
        again, found = with_numbers(text, "03")
        assert found == [] and html(again) == html(text)


def test_prose_that_points_at_a_table_or_figure_names_it() -> None:
    cells = json.loads(notebook(TABLE, TABLE + PICTURE))["cells"]
    said = "The table above, the table\nbelow, the figure below, the figure above; the table."
    words = {"cell_type": "markdown", "metadata": {}, "source": [said[:9], said[9:]]}
    found = json.loads(with_numbers(json.dumps({"cells": [cells[0], words, *cells[1:]]}), "04")[0])
    assert found["cells"][1]["source"] == (
        '<a href="#table-4-1">Table 4.1</a>, <a href="#table-4-2">Table 4.2</a>, '
        '<a href="#figure-4-1">Figure 4.1</a>, the figure above; the table.'
    )


def test_what_is_folded_is_named_only_where_its_cell_has_no_other() -> None:
    folded = f"<details>{TABLE}</details>"
    for outputs, name in (([TABLE + folded], "4.1"), ([TABLE, folded], "4.2")):
        text = json.loads(notebook(*outputs))
        text["cells"][-1] |= {"cell_type": "markdown", "source": "The table above"}
        found = json.loads(with_numbers(json.dumps(text), "04")[0])["cells"][-1]["source"]
        assert found == f'<a href="#table-{name.replace(".", "-")}">Table {name}</a>'


def test_the_list_leads_to_each() -> None:
    own = [Shown("Table 4.1", "table-4-1", Markup("a &lt;b&gt;"))]
    text = list_of([("04_table1", "Table 1", own), ("05_x", "Nothing", [])])
    assert "## [Table 1](../notebooks/04_table1)" in text and "Nothing" not in text
    link = '<li><a href="../notebooks/04_table1.html#table-4-1">Table 4.1</a>: a &lt;b&gt;</li>'
    assert link in text
