"""What is shown of a task that was learned in one language."""

from __future__ import annotations

import pytest
from test_taught_effects import made_up

from crane_lab.show import taught_pages
from crane_lab.study.taught_effects import taught_effects, taught_levels
from crane_lab.testbed.unseen import unseen_items
from crane_lab.testbed.world import LANGUAGES

NAMES = {"zh": "Chinese"}


def test_items_are_shown_in_every_language() -> None:
    nli = taught_pages.nli_items_table(unseen_items("nli", "test"), 1).to_html()
    qa = taught_pages.qa_items_table(unseen_items("qa", "test")).to_html()
    assert all(f">{x}<" in page for page in (nli, qa) for x in LANGUAGES)
    assert unseen_items("qa", "test")["zh"][0]["answer"] in qa


@pytest.mark.parametrize(("effect", "said"), [(0.1, "1 are for the better"), (-0.1, "1 for the")])
def test_sentences_follow_the_numbers(effect: float, said: str) -> None:
    text = str(taught_pages.effects_in_words(taught_effects(made_up(effect))).data)
    assert said in text and "1 of the 1 that have random sets lie beyond" in text
    null = str(taught_pages.effects_in_words(taught_effects(made_up(effect, draws=0))).data)
    assert "random sets" not in null


def test_tables_and_figures_have_the_numbers() -> None:
    effects = taught_effects(made_up(0.1))
    shown = taught_pages.taught_table(effects, "changes").to_html()
    assert "+0.105" in shown and "zero" in shown and "25" in shown
    assert taught_pages.effects_figure(effects, NAMES, "zh").data.count("+0.105") == 2
    levels = taught_pages.levels_table({"nli": taught_levels(made_up(0.1))}, {"nli": 1 / 3})
    assert "0.600" in levels.to_html() and "0.333" in levels.to_html()
    tuned = taught_effects(made_up(0.1, set_to=""))
    assert "set to" not in taught_pages.taught_table(tuned, "changes").to_html()
