"""What is shown of a task that was learned in one language."""

from __future__ import annotations

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from test_taught_effects import made_up
from test_text_taught import made_up as text_made_up

from crane_lab.show import taught_pages
from crane_lab.study.taught_effects import (
    right_by_people,
    taught_beside_random,
    taught_contrast,
    taught_effects,
    taught_levels,
)
from crane_lab.study.text_taught import text_effects
from crane_lab.testbed.unseen import LABELS, unseen_items
from crane_lab.testbed.world import LANGUAGES

NAMES = {"zh": "Chinese"}


def test_items_are_shown_in_every_language() -> None:
    nli = taught_pages.nli_items_table(unseen_items("nli", "test"), 1).to_html()
    qa = taught_pages.qa_items_table(unseen_items("qa", "test")).to_html()
    assert all(f">{x}<" in page for page in (nli, qa) for x in LANGUAGES)
    assert unseen_items("qa", "test")["zh"][0]["answer"] in qa


@pytest.mark.parametrize(("effect", "said"), [(0.1, "1,0"), (-0.1, "0,1"), (0.0, "0,0")])
def test_counts_and_sentences_follow_the_numbers(effect: float, said: str) -> None:
    effects = {"nli": taught_effects(made_up(effect))}
    shown = BeautifulSoup(taught_pages.effects_counts_table(effects).to_html(), "html.parser")
    cells = [cell.get_text() for cell in shown.select("tbody td")]
    assert ",".join(cells[3:5]) == said
    beyond = int(effect != 0)
    text = str(taught_pages.beyond_random_in_words(effects).data)
    assert f"{beyond} of 1 sets lie beyond" in text and "too few" not in text


def test_sets_beyond_all_of_too_few_are_named() -> None:
    few = {"nli": taught_effects(made_up(-0.1, draws=5))}
    text = str(taught_pages.beyond_random_in_words(few).data)
    assert "0 of 1 sets" in text and "CRANE zh cost more than every one of 5" in text
    few = {"nli": taught_effects(made_up(0.1, draws=5))}
    assert "zh cost less than every" in str(taught_pages.beyond_random_in_words(few).data)


def test_tables_and_figures_have_the_numbers() -> None:
    effects = taught_effects(made_up(0.1))
    shown = taught_pages.taught_table({"nli": effects}, "changes").to_html()
    assert "+0.105" in shown and "nli" in shown and "25" in shown
    assert taught_pages.effects_figure({"nli": effects}, NAMES, "zh").data.count("+0.105") == 2
    none = str(taught_pages.effects_figure({"nli": effects}, {"de": "German"}, "de").data)
    assert "no row of German" in none
    levels = taught_pages.levels_table(
        {"nli": taught_levels(made_up(0.1), 1 / 3)}, {"nli": {"zh": 0.125}}
    )
    people = taught_pages.people_table(right_by_people(made_up(0.1))).to_html()
    assert "0.33" in people and "picking any" in people
    assert "points in nli" in str(taught_pages.resolution_in_words({"nli": effects}).data)
    assert all(number in levels.to_html() for number in ("0.600", "0.333", "0.125"))


def test_what_is_of_another_run_is_said_to_be() -> None:
    recipe = {"items": 1500, "batch": 8, "epochs": 2, "learning_rate": 0.002, "rank": 8}
    made = {"inputs": {"recipe": recipe}, "seeds": 5, "machine": {"cpu": "a CPU"}}
    made |= {"versions": {"torch": "2.0"}, "differing": ["recipe"]}
    said = str(taught_pages.made_in_words({"nli": made}, "a command").data)
    assert "1,500 items" in said and "not those" not in said and "`a command`" in said
    made["differing"] = ["sets"]
    assert "not those of your run" in str(taught_pages.made_in_words({"nli": made}, "").data)


def test_comparisons_have_their_intervals() -> None:
    table = made_up(0.1, set_to="")
    beside = taught_pages.beside_random_table({"nli": taught_beside_random(table)}).to_html()
    assert "25" in beside and "less random" in beside
    low = made_up(0.05)
    low["set_to"] = low["set_to"].replace("zero", "P10 after")
    both = pd.concat([made_up(0.1), low])
    contrast = taught_contrast(both, "zero", "P10 after")
    assert "+0.050 [" in taught_pages.contrast_table({("qa", "P10 after"): contrast}).to_html()
    said = str(taught_pages.contrast_in_words({("qa", "P10 after"): contrast}).data)
    assert "qa, P10 after: certainly worse than zero in 1 of 1 rows" in said and "+5.0" in said
    changed = pd.DataFrame([{"projection": "up_proj", "chosen": 10, "changed": 5, "others": 90}])
    shown = taught_pages.changed_weights_table(changed.assign(others_changed=0)).to_html()
    assert "50.0%" in shown and ">0<" in shown


@pytest.mark.parametrize(("effect", "said"), [(0.1, (2, 0)), (-0.1, (0, 2)), (0.0, (0, 0))])
def test_values_stand_beside_random_sets_at_them(effect: float, said: tuple[int, int]) -> None:
    few = made_up(effect, draws=3, set_to="mean after")
    found = {"nli": taught_beside_random(pd.concat([made_up(effect), few]))}
    text = str(taught_pages.values_beside_random_in_words(found).data)
    assert "of 2 sets at a value" in text and "25 or 3 random sets" in text
    assert f"{said[0]} are certainly better" in text and f"{said[1]} certainly worse" in text
    shown = vars(taught_pages.values_beside_random_table(found))["data"]
    assert list(shown.columns) == ["task", "method", "language", "zero", "mean after"]
    assert shown["zero"].item().endswith("*") == bool(effect)


def test_text_is_shown_beside_random_sets() -> None:
    effects = text_effects(text_made_up(-0.1))
    shown = BeautifulSoup(taught_pages.text_table(effects).to_html(), "html.parser")
    crane = [row.get_text(" ") for row in shown.select("tbody tr") if "CRANE" in row.get_text()]
    assert "-0.1" in crane[0] and "0.500" in crane[0]
    assert "Chinese: -0.1" in str(taught_pages.text_figure(effects, NAMES).data)
    said = str(taught_pages.text_in_words(effects, NAMES).data)
    own = effects[(effects["method"] == "CRANE") & (effects["of"] == effects["language"])].iloc[0]
    assert f"CRANE: {own['change']:+.2f} in Chinese (random {own['random']:+.2f}; " in said
    assert f"questions right {own['exact']:.2f}, random {own['random_exact']:.2f})" in said
    assert f"all {int(own['draws'])} random sets" in said and "\n- all" not in said
    # Of a shipped table's languages, not only the run's.
    assert "Chinese: -0.1" in str(taught_pages.text_figure(effects, {"vi": "Vietnamese"}).data)
    assert "in Chinese (random" in str(taught_pages.text_in_words(effects, {}).data)
    few = effects.assign(draws=float("nan"))
    assert "Nothing was tuned" in str(taught_pages.text_in_words(few, NAMES).data)


def test_where_a_task_arrives_is_said() -> None:
    levels = pd.DataFrame({"language": ["en", "zh", "vi"], "above": [True, True, False]})
    levels["low"] = [0.6, 0.5, 0.1]
    nowhere = levels.assign(above=[True, False, False])
    nothing = levels.assign(above=False)
    text = str(taught_pages.transfer_in_words({"a": levels, "b": nowhere, "c": nothing}, "en").data)
    assert "a is learned in en, and arrives in zh, not certainly in vi." in text
    assert "b is learned in en, and certainly arrives nowhere." in text
    assert "c is not certainly learned in en" in text
    before = {"a": {"en": 0.3, "zh": 0.55, "vi": 0.2}}  # what could be done is not learned
    text = str(taught_pages.transfer_in_words({"a": levels}, "en", before).data)
    assert "a is learned in en, and certainly arrives nowhere." in text


def test_certain_gains_are_named_with_what_random_sets_do() -> None:
    text = str(taught_pages.gains_in_words({"nli": taught_effects(made_up(0.1))}).data)
    assert "CRANE zh, zero: +0.105" in text and "25 random sets, likewise" in text
    assert "lies above 100 %" in text
    at = taught_effects(made_up(0.1, set_to="P75 after"))
    text = str(taught_pages.gains_in_words({"nli": at}).data)
    assert "25 random sets, likewise" in text and "lies above" not in text
    alone = taught_effects(made_up(0.1, draws=0, set_to="P75 after"))
    assert "no random set" in str(taught_pages.gains_in_words({"nli": alone}).data)
    for effect in (0.0, -0.1):
        text = str(taught_pages.gains_in_words({"nli": taught_effects(made_up(effect))}).data)
        assert text.endswith("- nli: none.")


def test_one_label_for_everything_is_told() -> None:
    shares = {("zh", 0): (1.0, 0.0, 0.0), ("zh", 1): (1.0, 0.0, 0.5)}
    shares |= dict.fromkeys([("vi", 0), ("vi", 1)], (0.5, 0.2, 0.1))
    rows = [
        {"language": x, "seed": seed, "label": label, "items": 5, "right": right}
        for (x, seed), own in shares.items()
        for label, right in zip(LABELS, own, strict=True)
    ]
    found = pd.DataFrame(rows)
    text = str(taught_pages.labels_in_words(found).data)
    assert "zh: after 2 of 2 no item of some label is right, after 1 every item" in text
    assert "vi" not in text
    even = str(taught_pages.labels_in_words(found[found["language"] == "vi"]).data)
    assert "items of every label are right" in even
    shown = vars(taught_pages.labels_table(found))["data"]
    assert "neutral (5)" in shown and len(shown) == 4


def test_trainings_stand_one_by_one() -> None:
    table = made_up(0.1)
    shown = vars(taught_pages.trainings_table(table, "zh"))["data"]
    assert list(shown["training"]) == sorted(set(table["seed"]))
    assert {"untouched", "CRANE"} <= set(shown) and not any("Random" in x for x in shown)
    zero = table[(table["method"] == "CRANE") & (table["set_to"] == "zero")]
    assert shown["CRANE"].iloc[0] == zero[zero["seed"] == 0]["score"].mean()
