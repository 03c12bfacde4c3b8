"""Quick questions: three on every notebook's page, and what a page says to what is chosen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from browser import STATIC, opened
from bs4 import BeautifulSoup
from hostile import HOSTILE
from test_typed_in import NUMBER

from crane_lab.runs.book import toc_entries
from crane_lab.runs.questions import with_questions
from crane_lab.show.foreign import as_inline
from crane_lab.show.quick_questions import QuickQuestion, questions_html, quick_questions_of
from crane_lab.store import ROOT

FOLDER = ROOT / "book" / "questions"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
PAGES = [Path(e).name.split("_")[0] for e in toc_entries(TOC) if e.startswith("notebooks/")]


@pytest.mark.parametrize("page", PAGES)
def test_every_notebook_has_three(page: str) -> None:
    questions = quick_questions_of(FOLDER / f"{page}.yaml")
    assert len(questions) == 3
    for question in questions:
        texts = [option.text for option in question.options]
        whys = [option.why for option in question.options]
        assert len({*texts, *whys}) == 2 * len(texts)
        assert question.ask.endswith("?")
        assert all(why.endswith(".") and len(why) > 20 for why in whys)
        # What a rerun would change, a question does not ask.
        assert not NUMBER.findall(" ".join((question.ask, *texts, *whys)))
    # Who always takes the first does not get far.
    assert len({[o.right for o in q.options].index(True) for q in questions}) > 1


def test_no_place_is_a_good_guess() -> None:
    every = [q for page in PAGES for q in quick_questions_of(FOLDER / f"{page}.yaml")]
    places = Counter([o.right for o in q.options].index(True) for q in every)
    assert max(places.values()) < len(every) / 2
    longest = sum(
        len(o.text) == max(len(p.text) for p in q.options)
        for q in every
        for o in q.options
        if o.right
    )
    assert longest < len(every) * 0.36  # of three options
    assert {path.stem for path in FOLDER.iterdir()} == set(PAGES)


@pytest.mark.parametrize(
    "options",
    [
        "[{right: a, why: b.}, {wrong: c, why: d.}]",
        "[{right: a, why: b.}, {right: c, why: d.}, {wrong: e, why: f.}]",
        "[{wrong: a, why: b.}, {wrong: c, why: d.}, {wrong: e, why: f.}]",
        "[{right: a}, {wrong: c, why: d.}, {wrong: e, why: f.}]",
        "[{right: a, wrong: a, why: b.}, {wrong: c, why: d.}, {wrong: e, why: f.}]",
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(options: str, tmp_path: Path) -> None:
    path = tmp_path / "00.yaml"
    path.write_text(f"- ask: Which?\n  options: {options}\n")
    with pytest.raises(ValueError, match=r"00\.yaml: "):
        quick_questions_of(path)


def made() -> list[QuickQuestion]:
    return quick_questions_of(FOLDER / "03.yaml")


def test_without_scripts_the_answers_are_folded() -> None:
    html = str(questions_html(made()))
    assert "\n\n" not in html  # Markdown would end the block there
    soup = BeautifulSoup(html, "lxml")
    assert len(soup.select("fieldset > legend")) == 3
    assert len(soup.select("label > input[type=radio]")) == 9
    assert len({tag["name"] for tag in soup.select("input")}) == 3
    folded = soup.select("details:not([open]) li")
    assert [li["data-answer"] for li in folded].count("right") == 3 and len(folded) == 9
    assert "Nothing: right. The rule keeps" in folded[0].text.replace("\n", " ")
    assert soup.select("code")[0].text == "threshold"
    assert not soup.select("script")


CHOOSE = """<script>addEventListener("load", () => {
  const said = [];
  for (const question of document.querySelectorAll(".quick-question")) {
    for (const input of question.querySelectorAll("input")) {
      input.click();
      const now = question.querySelector("[role=status]");
      said.push([now.textContent, question.dataset.chosen, getComputedStyle(now).display]);
    }
  }
  const made = document.body.appendChild(document.createElement("pre"));
  made.id = "said";
  made.textContent = JSON.stringify(said);
});</script>"""


def test_a_browser_explains_what_is_chosen(tmp_path: Path) -> None:
    style = f"<style>{(STATIC / 'quick_questions.css').read_text('utf-8')}</style>"
    body = style + str(questions_html(made())) + CHOOSE
    soup = opened(tmp_path, ["quick_questions.js"], body)
    said = json.loads(soup.select("#said")[0].text)
    options = [option for question in made() for option in question.options]
    assert len(said) == len(options) == 9
    for (text, kind, display), option in zip(said, options, strict=True):
        head = "Right. " if option.right else "Not this one. "
        assert text == head + option.why.replace("`", "")
        assert kind == ("right" if option.right else "wrong")
        assert display == "block"


def notebook(*sources: str) -> str:
    cells = [{"cell_type": "markdown", "id": s, "metadata": {}, "source": s} for s in sources]
    return json.dumps({"cells": cells})


def test_questions_come_before_the_exercises() -> None:
    path = FOLDER / "03.yaml"
    for exercises in ("## Exercises\n\nOne.", "Some text.\n\n## Exercise\n\nOne."):
        found = json.loads(with_questions(notebook("# Title", exercises, "## End"), path))
        sources = [cell["source"] for cell in found["cells"]]
        (place,) = [i for i, cell in enumerate(found["cells"]) if cell["id"] == "quick-questions"]
        rest = sources[1:place] + sources[place + 1 : -1]
        assert "".join(rest) == exercises and rest[-1].startswith("## Exercise")
        assert len({cell["id"] for cell in found["cells"]}) == len(sources)
    found = json.loads(with_questions(notebook("# Title", "text"), path))
    assert found["cells"][-1]["source"].startswith("## Quick questions\n\n<div")
    text = notebook("# Title")
    assert with_questions(text, FOLDER / "none.yaml") == text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_sentence_is_never_markup(text: str) -> None:
    soup = BeautifulSoup(str(as_inline(text)), "lxml")
    kinds = {tag.name for tag in soup.find_all(True)}
    assert kinds <= {"html", "body", "p", "code", "em", "strong", "br", "wbr"}


def test_what_the_script_may_not_do() -> None:
    script = (STATIC / "quick_questions.js").read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "http"):
        assert way not in script
