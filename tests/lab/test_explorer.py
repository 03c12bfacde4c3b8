"""A table of which a reader chooses the rows: without scripts, with them, and with foul texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import STATIC, opened
from bs4 import BeautifulSoup, Tag
from hostile import HOSTILE

from crane_lab.show import foreign
from crane_lab.show.explorer import choice_view
from crane_lab.texts.visible import visible

ENDS = "</script><img src=x onerror=\"window.owned=1\"> 'quoted' </table>"
QUESTIONS = ("Why?", ENDS)
TABLE = pd.DataFrame(
    [
        {"question": question, "in": x, "said": f"{question} ({x})", "by": by, "code": x,
         "text": f"{by} on {question} in {x}"}
        for question in QUESTIONS
        for x in ("en", "zh")
        for by in ("none", "LAPE")
    ]
)  # fmt: skip
CHOSEN: dict[str, Any] = {
    "choices": ["question", "in"],
    "shown": ["by", "text"],
    "caption": f"Answers {ENDS}",
    "above": ["said"],
    "languages": {"text": "code"},
}


def view(table: pd.DataFrame = TABLE, **given: Any) -> str:
    return str(choice_view(table, **(CHOSEN | given)).data)


def rows(soup: BeautifulSoup | Tag) -> list[list[str]]:
    lines = soup.select("tbody tr")
    return [[cell.get_text() for cell in line.find_all(["th", "td"])] for line in lines]


def data_of(soup: BeautifulSoup | Tag) -> Any:
    script = soup.find("script")
    assert script is not None
    return json.loads(script.text)


def test_without_scripts_there_is_a_table_of_the_first_choice() -> None:
    soup = BeautifulSoup(view(first={"in": "zh"}), "lxml")
    assert rows(soup) == [["none", "none on Why? in zh"], ["LAPE", "LAPE on Why? in zh"]]
    assert [tag.get("scope") for tag in soup.find_all("th")] == ["col", "col", "row", "row"]
    assert [tag.get("lang") for tag in soup.find_all("td")] == ["zh", "zh"]
    alone, said, caption = soup.select("caption, .choice-alone, .choice-said")
    assert "One of 4 choices (question: Why?; in: zh)" in alone.text
    assert said.get("aria-live") == "polite" and said.text == "said: Why? (zh)2 rows."
    assert caption.text == f"Answers {ENDS}"
    fields = soup.select_one(".choice-fields")
    assert fields is not None and fields.has_attr("hidden") and not fields.text


@pytest.mark.parametrize("text", [ENDS, "\u2028 \" ' & \\u003c", *HOSTILE.values()])
def test_texts_do_no_harm_and_come_back(text: str) -> None:
    table = pd.DataFrame({"question": [text, "b"], "text": [text, text + "!"]})
    html = view(table, choices=["question"], shown=["text"], above=(), languages=None, caption=text)
    soup = BeautifulSoup(html, "lxml")
    assert {tag.name for tag in soup.find_all(True)} <= {
        *("html", "body", "div", "p", "table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("script", "br", "wbr"),
    }
    assert html.count("<script") == html.count("</script") == 1 and "<!--" not in html
    columns = data_of(soup)["columns"]
    assert [column["values"] for column in columns] == [
        [visible(text), "b"],
        [visible(text), visible(text + "!")],
    ]
    assert [column["codes"] for column in columns] == [[0, 1], [0, 1]]
    [[cell]] = rows(BeautifulSoup(html.replace("<br>", "\n"), "lxml"))
    assert cell == visible(text)


def test_a_text_is_there_once_and_what_is_missing_is_a_dash() -> None:
    table = TABLE.assign(text=["long text " * 9, np.nan] * 4, code=["en", np.nan] * 4)
    soup = BeautifulSoup(view(table), "lxml")
    column = data_of(soup)["columns"][4]
    assert column == {"name": "text", "values": ["long text " * 9, "–"], "codes": [0, 1] * 4}
    assert rows(soup)[1] == ["LAPE", "–"]
    assert [tag.get("lang") for tag in soup.find_all("td")] == ["en", ""]
    many = BeautifulSoup(view(pd.concat([table] * 100)), "lxml")
    script = many.find("script")
    assert script is not None and script.text.count("long text " * 9) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"choices": ["question", "nosuch"]},
            r"no columns \['nosuch'\]: the table has \['question",
        ),
        ({"shown": ["x"], "above": ["y"]}, r"no columns \['y', 'x'\]"),
        ({"languages": {"text": "z"}}, r"no columns \['z'\]"),
        ({"first": {"w": 1}}, r"no columns \['w'\]"),
        ({"first": {"in": "de"}}, "no row to show at first: none of 8 has {'in': 'de'}"),
        ({"first": {"by": "none"}}, r"\['by'\] cannot be chosen"),
        ({"choices": []}, "nothing to choose by"),
        ({"table": TABLE[:0]}, "no row to show at first: none of 0"),
    ],
)
def test_what_cannot_be_shown_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view(**given)


def test_data_ends_no_script() -> None:
    assert foreign.as_data({"a": ["</script>&\u2029", 1]}) == (
        '{"a":["\\u003c/script\\u003e\\u0026\\u2029",1]}'
    )
    with pytest.raises(ValueError, match="JSON"):
        foreign.as_data(float("nan"))


def test_what_the_script_may_not_do() -> None:
    script = (STATIC / "choice_view.js").read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "http"):
        assert way not in script


# What a reader does, one view after the other; nothing waits, so the page is dumped after it.
CHOOSE = """<script>
addEventListener("load", () => {
  const views = document.querySelectorAll(".choice-view");
  const choose = (view, place, code) => {
    const select = views[view].querySelectorAll("select")[place];
    select.value = String(code);
    select.dispatchEvent(new Event("change"));
  };
  choose(0, 0, 1);
  choose(0, 1, 1);
  choose(2, 0, 1);
});
</script>"""


def test_a_browser_shows_what_is_chosen(tmp_path: Path) -> None:
    foul = pd.DataFrame({"question": HOSTILE, "text": HOSTILE}).reset_index(drop=True)
    gaps = TABLE[(TABLE["question"] == "Why?") | (TABLE["in"] == "zh")]
    page = view() + view(first={"in": "zh"}) + view(gaps)
    page += "".join(
        view(foul, choices=["question"], shown=["text"], above=(), languages=None,
             first={"question": text})
        for text in HOSTILE.values()
    )  # fmt: skip
    # Every foul text is chosen once more, by the script.
    choose = CHOOSE.replace(
        "});\n</script>",
        f"for (let i = 0; i < {len(foul)}; i++) choose(3 + i, 0, i);\n"
        "document.body.dataset.owned = String(window.owned); });\n</script>",
    )
    soup = opened(tmp_path, ["choice_view.js"], page + choose)
    one, other, third, *rest = soup.select(".choice-view")
    assert rows(one) == [[by, f"{by} on {ENDS} in zh"] for by in ("none", "LAPE")]
    assert [tag.get("lang") for tag in one.select("tbody td")] == ["zh", "zh"]
    assert [tag.get("scope") for tag in one.select("tbody th")] == ["row", "row"]
    said = [tag.select_one(".choice-said") for tag in (one, other, third)]
    assert [tag.get_text("|") for tag in said if tag] == [
        f"said:| |{ENDS} (zh)|2 rows.",
        "said:| |Why? (zh)|2 rows.",  # as it was
        "Nothing was run for this choice.",
    ]
    assert rows(other) == [[by, f"{by} on Why? in zh"] for by in ("none", "LAPE")]
    assert rows(third) == []
    assert len(one.select("label select")) == 2 and not soup.select(".choice-alone, [hidden]")
    # Views with the foul texts: all options, and the row; no element that is not ours.
    for own, text in zip(rest, HOSTILE.values(), strict=True):
        assert [option.text for option in own.select("option")] == list(
            map(visible, HOSTILE.values())
        )
        assert rows(own) == [[visible(text)]]
    assert not soup.select("img, svg, s, b, iframe, a")
    assert soup.title is not None and soup.title.text == "as it was"
    assert soup.body is not None and soup.body["data-owned"] == "undefined"


NARROW = """<script>
addEventListener("load", () => {
  const fields = document.querySelectorAll("select");
  for (const [field, value] of [[2, 2], [5, 2], [5, -1]]) {
    fields[field].value = value;
    fields[field].dispatchEvent(new Event("change"));
  }
});
</script>"""


def test_rows_can_be_left_out_but_what_they_are_held_against_stays(tmp_path: Path) -> None:
    three = TABLE.assign(method=TABLE["by"].replace("none", ""))
    three = pd.concat([three, TABLE.assign(by="CRANE", method="CRANE")[1::2]], ignore_index=True)
    page = view(three, narrowed=["method"], first={"in": "zh"}) * 2
    (shown,) = {str(rows(part)) for part in BeautifulSoup(page, "lxml").select(".choice-view")}
    one, other = opened(tmp_path, ["choice_view.js"], page + NARROW).select(".choice-view")
    assert [by for by, _ in rows(one)] == ["none", "CRANE"]
    assert str(rows(other)) == shown and len(rows(other)) == 3
    assert [x.text for x in one.select("select")[2].select("option")] == ["all", "LAPE", "CRANE"]
