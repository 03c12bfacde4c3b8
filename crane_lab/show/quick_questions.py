"""Quick questions of a page, to be answered there: `book/questions/` has them, one file a page.

A question has options, one of them right, and each option its explanation. Scripts
(`book/_static/quick_questions.js`) show the explanation of what is chosen; without scripts all of
them are folded under the question.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from markupsafe import Markup

from crane_lab.show.foreign import as_inline, markup


@dataclass(frozen=True)
class QuickOption:
    """One answer to choose, and why it is right or wrong."""

    text: str
    why: str
    right: bool


@dataclass(frozen=True)
class QuickQuestion:
    """A question with its options, in the order in which they are shown."""

    ask: str
    options: tuple[QuickOption, ...]


def quick_questions_of(path: Path) -> list[QuickQuestion]:
    """The questions of one page.

    Raises ValueError if an option is neither `right` nor `wrong` or has no `why`, or if a question
    has not three or four options and just one that is right.
    """
    found = []
    for given in yaml.safe_load(path.read_text("utf-8")):
        options = []
        for option in given["options"]:
            kinds = option.keys() & {"right", "wrong"}
            if len(kinds) != 1 or not option.get("why"):
                raise ValueError(f"{path.name}: an option has right or wrong, and why: {option}")
            (kind,) = kinds
            options.append(QuickOption(str(option[kind]), str(option["why"]), kind == "right"))
        if not 3 <= len(options) <= 4 or sum(option.right for option in options) != 1:
            raise ValueError(
                f"{path.name}: expected three or four options and one right one: {given['ask']}"
            )
        found.append(QuickQuestion(str(given["ask"]), tuple(options)))
    return found


def questions_html(questions: list[QuickQuestion]) -> Markup:
    """The questions as HTML, in one block without an empty line, as Markdown needs it."""
    return markup(
        '<div class="quick-questions">\n<p>Choose an answer to read what speaks for it or against '
        "it. All of them are folded under each question.</p>\n{questions}</div>",
        questions=Markup("").join(_one(i, question) for i, question in enumerate(questions, 1)),
    )


def _one(number: int, question: QuickQuestion) -> Markup:
    options, answers = Markup(""), Markup("")
    for option in question.options:
        text, why = as_inline(option.text), as_inline(option.why)
        # Or a browser may restore a choice whose explanation is not shown.
        options += markup(
            '<label><input type="radio" name="quick-{number}" autocomplete="off">'
            "<span>{text}</span></label>\n",
            number=number,
            text=text,
        )
        answers += markup(
            '<li data-answer="{kind}"><strong>{text}:</strong> {kind}. <span>{why}</span></li>\n',
            kind="right" if option.right else "wrong",
            text=text,
            why=why,
        )
    return markup(
        '<fieldset class="quick-question">\n<legend>{ask}</legend>\n{options}'
        '<p class="quick-said" role="status"></p>\n'
        "<details><summary>All answers</summary>\n<ul>\n{answers}</ul>\n</details>\n</fieldset>\n",
        ask=as_inline(question.ask),
        options=options,
        answers=answers,
    )
