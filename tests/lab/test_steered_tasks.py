"""Tasks under steering: what is run, how it is scored, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_pipeline import folder, settings_in
from test_steering import two_each

from crane_core.interventions import UNTOUCHED
from crane_lab.pipeline import Pipeline
from crane_lab.show import steered_tasks_pages as page
from crane_lab.store import ROOT, Store
from crane_lab.study import steered_tasks
from crane_lab.study.known import known_languages
from crane_lab.study.many_languages import LAPE
from crane_lab.study.steered_tasks import NLI, TRANSLATION, TaskPlan, task_scores
from crane_lab.study.steering import Steered
from crane_lab.study.steering_effects import UNSTEERED, success_by_language
from crane_lab.study.task_effects import (
    OTHER,
    OWN,
    task_cells,
    task_summary,
    translation_summary,
)
from crane_lab.study.taught import RANDOM
from crane_lab.texts.held_out import held_out_paragraphs, translations
from crane_lab.tuning.training import TuningRecipe

__all__ = ["folder"]  # a fixture
LANGUAGES = ("en", "zh", "vi")
PLAN = TaskPlan(
    LANGUAGES,
    methods=(LAPE,),
    items={"facts": 4, TRANSLATION: 2, NLI: 3, "continuation": 3},
    shots=1,
    longest=4,
    seeds=2,
    tasks_folder=str(ROOT / "data" / "tasks"),
    texts=str(ROOT / "data" / "texts"),
    recipe=TuningRecipe(items=8, epochs=1),
)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def steered(pipeline: Pipeline) -> Steered:
    values = {x: torch.full(pipeline.shape["intermediate"], 30.0) for x in LANGUAGES}
    return Steered({LAPE: two_each(pipeline, LANGUAGES)}, {"mean": values})


@pytest.fixture(scope="module")
def shipped(pipeline: Pipeline, steered: Steered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    steered_tasks.ship_steered_tasks(pipeline, steered, PLAN, out)
    return out


def test_everything_is_run_beside_nothing_and_random_neurons(
    pipeline: Pipeline, steered: Steered, shipped: Path
) -> None:
    table, made = steered_tasks.read_steered_tasks(shipped)
    assert not table.duplicated(steered_tasks.KEYS).any()
    assert set(table["method"]) == {UNSTEERED, LAPE, f"{RANDOM} as {LAPE}"}
    tested = table[table["method"] == LAPE].groupby("task")["language"].agg(set)
    assert tested[TRANSLATION] == {"zh", "vi"}
    assert all(tested[task] == set(LANGUAGES) for task in ("facts", NLI, "continuation"))
    assert set(table[table["task"] == NLI]["seed"]) == {0, 1}
    for row in table.to_dict("records"):
        n = PLAN.items[row["task"]]
        assert len(json.loads(row["texts"]) if row["task"] == TRANSLATION else row["right"]) == n
    # Steering as hard as this does something.
    texts = table[(table["task"] == TRANSLATION) & (table["language"] == "zh")]
    written = {(row["method"], row["activated"]): row["texts"] for row in texts.to_dict("records")}
    assert written[UNSTEERED, ""] != written[LAPE, "vi"]
    before = (shipped / steered_tasks.FILE).read_bytes()
    steered_tasks.ship_steered_tasks(pipeline, steered, PLAN, shipped)
    assert (shipped / steered_tasks.FILE).read_bytes() == before
    assert made["inputs"]["items"] == PLAN.items


def test_random_neurons_get_the_same_numbers(steered: Steered) -> None:
    values = {x: torch.rand(value.shape) for x, value in steered.values["mean"].items()}
    under = list(steered_tasks.interventions_of(Steered(steered.sets, {"mean": values}), PLAN))
    assert under[0][1] is UNTOUCHED
    (_, own), (_, random) = under[1], under[4]
    for layer in (0, 1):
        added = [
            step.value["intermediate"][layer][step.neurons.mask()[layer]]  # type: ignore[index]
            for one in (own, random)
            for step in one.steps
        ]
        assert torch.equal(added[0].sort().values, added[1].sort().values)
    assert own.steps[0].neurons != random.steps[0].neurons


def test_a_language_without_a_set_is_named_before_anything_is_run(
    pipeline: Pipeline, steered: Steered, tmp_path: Path
) -> None:
    sets = {LAPE: {x: steered.sets[LAPE][x] for x in ("en", "zh")}}
    with pytest.raises(ValueError, match="no set of 'vi'"):
        steered_tasks.ship_steered_tasks(pipeline, Steered(sets, steered.values), PLAN, tmp_path)
    assert not list(tmp_path.iterdir())


def test_scores_of_other_texts_are_refused(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--parts tasks"):
        steered_tasks.shipped_scores(tmp_path)
    scores, corpora = steered_tasks.shipped_scores(shipped)
    assert len(corpora) == 2 * 7  # two languages: nothing, three sets, three random ones
    assert (scores["scores"].map(len) == scores["task"].map(PLAN.items)).all()
    for file in shipped.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = tmp_path / steered_tasks.FILE.replace(".csv", ".json")
    made = json.loads(record.read_text())
    made["inputs"]["translations"] = "others"
    record.write_text(json.dumps(made))
    with pytest.raises(ValueError, match="other texts"):
        steered_tasks.shipped_scores(tmp_path)


def test_a_right_translation_scores_full_marks_and_none_at_all_nothing() -> None:
    wanted = {"zh": ["今天天气很好。", "他去了学校。"]}
    row: dict[str, object] = {"task": TRANSLATION, "method": UNSTEERED, "activated": ""}
    row |= {"language": "zh", "draw": -1, "seed": 0, "right": ""}
    for said, full in ((wanted["zh"], True), (["", ""], False)):
        texts = json.dumps(said, ensure_ascii=False)
        scores, corpora = task_scores(pd.DataFrame([{**row, "texts": texts}]), wanted)
        assert np.allclose(scores["scores"][0], float(full))
        assert np.allclose(corpora[["chrf", "bleu"]].iloc[0], 100.0 * full)
        assert corpora["told"][0] == float(full)


def made_scores(own: float, other: float, random: float, seeds: int = 1) -> pd.DataFrame:
    """Scores that move by known amounts."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for x in LANGUAGES:
        base = rng.random((seeds, 40))
        for method, draw, shift in ((LAPE, -1, None), (f"{RANDOM} as {LAPE}", 0, random)):
            for activated in LANGUAGES:
                moved = (own if activated == x else other) if shift is None else shift
                for seed in range(seeds):
                    noise = rng.normal(0, 0.01, 40)
                    row: dict[str, object] = {"method": method, "activated": activated}
                    row |= {"draw": draw, "language": x, "seed": seed}
                    rows.append({**row, "scores": list(base[seed] + moved + noise)})
        for seed in range(seeds):
            row = {"method": UNSTEERED, "activated": "", "draw": -1, "language": x}
            rows.append({**row, "seed": seed, "scores": list(base[seed])})
    return pd.DataFrame(rows).assign(task=NLI)


@pytest.mark.parametrize("seeds", [1, 3])
def test_changes_are_found_as_they_were_made(seeds: int) -> None:
    scores = made_scores(0.1, -0.05, 0.02, seeds)
    summary = task_summary(scores).set_index("whose")
    for whose, change, pairs in ((OWN, 0.1, 3), (OTHER, -0.05, 6)):
        row = summary.loc[whose]
        assert row["change"] == pytest.approx(change, abs=0.005)
        assert row["low"] < change < row["high"]
        assert row["random"] == pytest.approx(0.02, abs=0.005)
        assert row["ahead"] == pytest.approx(change - 0.02, abs=0.005)
        assert (row["q"] < 0.01, row["pairs"]) == (True, pairs)
    cells = task_cells(scores)
    assert len(cells) == 9 and np.allclose(cells["random"], 0.02, atol=0.005)
    assert (
        np.sign(cells["change"]) == np.where(cells["language"] == cells["activated"], 1, -1)
    ).all()
    nothing = task_summary(made_scores(0.0, 0.0, 0.0, seeds))
    assert (nothing["q"] > 0.05).all()


def test_scores_without_random_neurons_are_not_said_to_be_ahead() -> None:
    scores = made_scores(0.1, 0.1, 0.0)
    found = task_summary(scores[~scores["method"].str.startswith(RANDOM)])
    assert found["ahead"].isna().all() and found["change"].notna().all()
    some = scores[~(scores["method"].str.startswith(RANDOM) & (scores["activated"] == "vi"))]
    assert task_summary(some)["ahead"].isna().all()  # not beside random sets of other languages
    with pytest.raises(ValueError, match="no row of nli, none, en"):
        task_summary(scores[scores["method"] != UNSTEERED])


def test_random_sets_that_differ_make_being_ahead_of_them_uncertain() -> None:
    """With the same mean, what sets do differs from draw to draw, or does not."""
    found = {}
    for spread in (0.0, 0.3):
        scores = made_scores(0.1, 0.1, 0.0)
        shift = {"en": -spread, "zh": 0.0, "vi": spread}
        random = scores["method"].str.startswith(RANDOM)
        scores["scores"] = [
            [one + shift[activated] for one in own] if drawn else own
            for own, activated, drawn in zip(
                scores["scores"], scores["activated"], random, strict=True
            )
        ]
        found[spread] = task_summary(scores)
    assert (found[0.0]["ahead_q"] < 0.01).all() and (found[0.3]["ahead_q"] > 0.2).all()
    assert np.allclose(found[0.0]["ahead"], found[0.3]["ahead"])
    assert (found[0.3]["q"] < 0.01).all() and (found[0.3]["sets"] == 3).all()


def test_what_cannot_be_run_is_named_before_anything_is(
    pipeline: Pipeline, steered: Steered, tmp_path: Path
) -> None:
    for languages, said in ((("zh", "vi"), "expected 'en'"), (("en", "de"), "nli has items in")):
        plan = dataclasses.replace(PLAN, languages=languages)
        with pytest.raises(ValueError, match=said):
            steered_tasks.ship_steered_tasks(pipeline, steered, plan, tmp_path)
    for wrong, said in (
        ({"tasks": ("facts", "xquad")}, "unknown task 'xquad': expected some of"),
        ({"shots": -1}, "shots is -1: expected 0 or more"),
        ({"draws": -1}, "draws is -1"),
        ({"seeds": 0}, "seeds is 0: expected 1 or more"),
        ({"items": {"facts": 3}}, "items has none of translation"),
        ({"methods": ("nope",)}, "unknown method 'nope'"),
    ):
        plan = dataclasses.replace(PLAN, **wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=said):
            steered_tasks.ship_steered_tasks(pipeline, steered, plan, tmp_path / "out")
    many = dataclasses.replace(PLAN, items={**PLAN.items, "continuation": 10**6})
    with pytest.raises(ValueError, match="items in all of en zh vi: expected 1000000"):
        steered_tasks.ship_steered_tasks(pipeline, steered, many, tmp_path / "out")


def test_items_are_the_same_in_every_language() -> None:
    for task in steered_tasks.CHOICE:
        tasks = steered_tasks._same_items(task, PLAN)
        clusters = [list(one.dataset["test"]["cluster"]) for one in tasks.values()]
        assert clusters[0] == clusters[1] == clusters[2]
        assert len(set(clusters[0])) == PLAN.items[task]


def test_the_page_says_what_is_certain() -> None:
    scores = made_scores(0.1, 0.0, 0.0)
    summary = task_summary(scores)
    said = page.tasks_in_words(summary).data
    assert "nli +10.1 points" in said and "no certain change" in said
    assert "certainly different" in said
    sized = page.items_in_words(scores, {"items": {"nli": 60, "facts": 80}})
    assert "Items in each language: nli 60, facts 80." in str(sized.data)
    assert "LAPE's were not tried in facts." in str(sized.data)
    page.tasks_figure(summary)
    page.tasks_table(summary)
    assert "+0.10*" in page.task_cells_table(task_cells(scores)).to_html()
    wide = pd.DataFrame(
        {"method": ["none"], "activated": [""], "language": ["zh"]}
        | {"chrf": [20.0], "bleu": [10.0], "told": [0.5]}
    )
    steered = wide.assign(method="LAPE", activated="en", chrf=15.0)
    row = {"task": TRANSLATION, "method": "LAPE", "language": "zh", "activated": "en"}
    cells = pd.DataFrame([{**row, "change": -0.05, "low": -0.07, "high": -0.03, "random": -0.02}])
    corpora = translation_summary(pd.concat([wide, steered]))
    html = page.translation_table(corpora, cells).to_html()
    assert (
        "20.0" in html
        and "−2.0" in html.replace("-", "−")
        and "−5.0 [−7.0, −3.0]" in html.replace("-", "−")
    )


def test_languages_that_are_known_better_need_less(pipeline: Pipeline) -> None:
    found = known_languages(pipeline, LANGUAGES, str(ROOT / "data" / "texts"), 3)
    assert list(found["language"]) == list(LANGUAGES)
    assert (found["nats"] > 0).all() and (found["tokens"] > 1).all()


def test_translations_are_of_each_other_and_as_many_as_there_are() -> None:
    paragraphs = {"en": {1: "one", 2: "x" * 99, 3: "three", 4: "four"}, "vi": {1: "a", 3: "c"}}
    assert translations(paragraphs, 2) == {"en": ["one", "three"], "vi": ["a", "c"]}
    with pytest.raises(ValueError, match="expected 3"):
        translations(paragraphs, 3)
    real = held_out_paragraphs(ROOT / "data" / "texts", ["en", "de"])
    assert len(set(real["en"]) & set(real["de"])) > 100


def forced(share: dict[str, float]) -> pd.DataFrame:
    """Answers whose language follows as often as `share` says of a target, and no untouched one."""
    rows: list[dict[str, object]] = []
    for target, often in share.items():
        for source in share:
            if source != target:
                digits = "1" * round(10 * often) + "0" * (10 - round(10 * often))
                rows.append({"method": LAPE, "kind": "add", "statistic": "mean", "strength": 1.0})
                rows[-1] |= {"target": target, "source": source, "in_target": digits}
                nothing = {"method": UNSTEERED, "kind": "", "statistic": "", "strength": 0.0}
                rows.append({**rows[-1], **nothing, "in_target": "0" * 10})
    return pd.DataFrame(rows)


def test_success_is_held_against_what_is_known_and_who_is_related() -> None:
    order = ["en", "de", "fr", "es", "ru", "vi", "zh", "ja"]
    shares = {x: 1 - i / 10 for i, x in enumerate(order)}
    nats = pd.DataFrame({"language": order, "nats": [100.0 + i for i in range(len(order))]})
    found = success_by_language(forced(shares), ("add", "mean", 1.0), nats, 199)
    row = found.iloc[0]
    assert row["known_rho"] == pytest.approx(-1) and row["known_q"] <= 0.02
    assert row["kin_rho"] < 0
    same = success_by_language(forced(dict.fromkeys(order, 0.5)), ("add", "mean", 1.0), nats, 99)
    assert np.isnan(same["known_rho"][0]) and np.isnan(same["kin_rho"][0])
