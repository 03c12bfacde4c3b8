"""Criteria taken apart: what sets are made of, and what they do to tasks and answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_pipeline import folder, settings_in
from transformers import AutoTokenizer

from crane_core.interventions import zero
from crane_lab.pipeline import Pipeline
from crane_lab.show import anatomy_pages
from crane_lab.stages import outcomes
from crane_lab.store import Store
from crane_lab.study import anatomy, criteria, damage, merit, uses
from crane_lab.study.anatomy import AnatomyPlan
from crane_lab.study.candidates import CRANE, Candidate, worded
from crane_lab.testbed import chat

__all__ = ["folder"]  # a fixture

FEW = (Candidate("mean_abs"), CRANE)
PLAN = AnatomyPlan(
    candidates=FEW,
    shares=(0.05, 0.2),
    beside=0.2,
    n_estimates=6,
    steps=2,
    windows=(8, 16),
    seeds=(1, 2),
    fed=FEW,
    n_necessity=8,
    n_damage=3,
)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    settings = settings_in(folder, task_limit=2, n_questions=2, max_new_tokens=4, judge="surface")
    return Pipeline(settings, Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def measured(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with single ablations, with a greedy search of a few neurons."""
    where = tmp_path_factory.mktemp("necessity")
    texts, _ = damage.held_out(pipeline, PLAN.n_necessity, PLAN.n_damage)
    damage.gold_standard(
        pipeline, texts, where, recompute=True, n_greedy=8, shortlist=8, steps=(2, 6)
    )
    yield where


def test_overlaps_are_pruned_whatever_the_budget() -> None:
    amounts = {
        "en": torch.tensor([[9.0, 8.0, 1.0, 2.0]]),
        "zh": torch.tensor([[9.5, 1.0, 8.0, 2.0]]),
    }
    found = {x: criteria.order(v).tolist() for x, v in anatomy.pruned(amounts).items()}
    # Neuron 0 is first in both, so that neither has it earlier, and neuron 2 is earlier in Chinese.
    assert found == {"en": [0, 1, 3, 2], "zh": [0, 2, 3, 1]}


def test_taken_in_turns_no_neuron_is_two_languages() -> None:
    amounts = {
        "en": torch.tensor([[9.0, 8.0, 7.0, 2.0]]),
        "zh": torch.tensor([[9.5, 9.0, 8.0, 2.0]]),
    }
    found = {x: own.tolist() for x, own in anatomy.taken_in_turns(amounts).items()}
    # English takes 0, so that Chinese goes on to 1, English to 2, and Chinese to 3.
    assert found == {"en": [0, 2, 1, 3], "zh": [1, 3, 0, 2]}
    drawn = {
        x: torch.rand(3, 7, generator=torch.Generator().manual_seed(i)) for i, x in enumerate("abc")
    }
    orders = anatomy.taken_in_turns(drawn)
    assert all(sorted(own.tolist()) == list(range(21)) for own in orders.values())
    assert len({i for own in orders.values() for i in own[:7].tolist()}) == 21


def test_what_is_made_is_not_made_again(
    pipeline: Pipeline, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anatomy.ship_anatomy(pipeline, PLAN, tmp_path, measured)
    for name in ("estimates", "sets_apart", "windows_needed"):
        monkeypatch.setattr(anatomy, name, None)
    anatomy.ship_anatomy(pipeline, PLAN, tmp_path, measured)
    with pytest.raises(TypeError):
        anatomy.ship_anatomy(pipeline, replace(PLAN, seeds=(5,)), tmp_path, measured)


def test_criteria_are_taken_apart_and_again_the_same(
    pipeline: Pipeline, measured: Path, tmp_path: Path
) -> None:
    anatomy.ship_anatomy(pipeline, PLAN, tmp_path / "one", measured)
    tables = anatomy.read_anatomy(tmp_path / "one")
    sets = tables[anatomy.SETS]
    named = {one.name for one in FEW} | {anatomy.PRUNED, anatomy.IN_TURNS, anatomy.FIRST_ORDER}
    named |= {"single effects", "greedy search"}
    assert set(sets["criterion"]) == named
    greedy = sets[sets["criterion"] == "greedy search"]
    assert greedy["n_neurons"].max() <= 6 < sets["n_neurons"].max()  # no set that was not searched
    texts, _ = damage.held_out(pipeline, PLAN.n_necessity, PLAN.n_damage)
    necessity = damage.gold_standard(pipeline, texts, measured).necessity
    row = sets[(sets["criterion"] == FEW[0].name) & (sets["language"] == "zh")].iloc[-1]
    score = anatomy._orders(pipeline, FEW)[FEW[0].name, "zh", -1][: int(row["budget"])]
    effects = {x: necessity.necessity(x).value.flatten()[score] for x in necessity.languages}
    assert row["alone_own"] == pytest.approx(float(effects["zh"].mean()), abs=1e-6)
    others = np.maximum(effects["en"], effects["vi"])
    assert row["alone_other"] == pytest.approx(float(others.mean()), abs=1e-6)
    assert row["predicted"] == pytest.approx(float(effects["zh"].sum()), abs=1e-6)
    assert 0 <= row["elsewhere"] <= 1 and row["late"] == pytest.approx(0)  # no third of two layers
    parts = anatomy.parts_of(sets, 0.2)
    assert parts["difference"].is_monotonic_decreasing

    estimated = tables[anatomy.ESTIMATES]
    assert len(estimated) == 3 * 2 * 2 * 4 * 2
    assert estimated["rho"].between(-1, 1).all()

    needed = tables[anatomy.NEEDED]
    assert (needed.loc[needed["windows"] == 16, "jaccard"] == 1).all()
    means = anatomy.by_windows(needed)
    assert len(means) == 2 * 2 and (means["low"] <= means["high"]).all()

    anatomy.ship_anatomy(pipeline, PLAN, tmp_path / "two", measured)
    for name in tables:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(FileNotFoundError, match="--why"):
        anatomy.read_anatomy(tmp_path)


def test_sets_by_windows_are_one_of_the_budgets() -> None:
    with pytest.raises(ValueError, match=r"budget 0\.3"):
        replace(PLAN, beside=0.3)


def test_tasks_and_answers_are_read_out(pipeline: Pipeline, folder: Path, tmp_path: Path) -> None:
    plan = uses.UsesPlan(FEW, share=0.2, draws=2, answer_draws=1)
    shutil.copytree(folder / "model1", talking := tmp_path / "chat")
    tokenizer = AutoTokenizer.from_pretrained(talking)
    tokenizer.chat_template = chat.TEMPLATE
    tokenizer.save_pretrained(talking)
    uses.ship_uses(pipeline, str(talking), plan, tmp_path)
    found = uses.read_uses(tmp_path)
    languages = pipeline.settings.languages
    assert len(found) == 4 * (1 + 2 * len(languages))
    tasks = found[(found["read"] == "tasks") & (found["model"] == "base")]
    assert tasks["null_masks"].iloc[1:].eq(2).all() and tasks["null_masks"].isna().iloc[0]
    chatting = found[(found["read"] == "tasks") & (found["model"] == "chat")]
    assert chatting["null_masks"].iloc[1:].eq(2).all()
    answers = found[(found["read"] == "answers") & (found["model"] == "base")]
    assert answers["null_masks"].iloc[1:].eq(1).all()
    one = merit.random_sets(merit.candidate_sets(pipeline, FEW[:1], [0.2], ["vi"]), 1)
    judged = pipeline.judged([outcomes.Row("random", "vi", zero(next(iter(one.values()))), 0)])
    beside = answers[(answers["method"] == FEW[0].name) & (answers["mask_language"] == "vi")]
    assert beside["null_mean"].item() == pytest.approx(judged.seeds()["langspec_f1"][0], abs=1e-6)
    row = tasks[(tasks["method"] == FEW[0].name) & (tasks["mask_language"] == "zh")].iloc[0]
    own = merit.candidate_sets(pipeline, FEW, [0.2])[FEW[0].name, "zh", 0.2]
    items = pipeline.changed(task_tables=("paper",)).items(zero(own))
    right = items[items["task"] == pipeline.main_tasks["zh"]]["correct"].mean()
    assert row["zh"] == pytest.approx(right, abs=1e-6)
    drawn = anatomy_pages.uses_figure(found, dict.fromkeys(languages, "x"))
    assert f"tasks of the base model {tasks['langspec_f1'].mean():.2f}" in drawn.data
    summary = uses.uses_summary(found)
    assert list(summary["method"]) == 4 * [one.name for one in FEW]
    rows = tasks[tasks["method"] == FEW[0].name]
    assert summary["above"].iloc[0] == rows["percentile"].eq(100).sum()
    assert summary["null_mean"].iloc[0] == pytest.approx(rows["null_mean"].mean())
    with pytest.raises(FileNotFoundError, match="--uses"):
        uses.read_uses(tmp_path / "none")


def test_fidelity_is_the_change_of_answers_in_the_language_asked() -> None:
    columns = ["en_in_language", "zh_in_language", "vi_in_language"]
    rows = [("Org", "", 1.0, 0.9, 0.8), ("x", "zh", 0.9, 0.2, 0.7)]
    table = pd.DataFrame(rows, columns=["method", "mask_language", *columns])
    (row,) = uses.fidelity_changes(
        table.assign(read="answers", model="base"), ["en", "zh", "vi"]
    ).to_dict("records")
    assert row["own"] == pytest.approx(-0.7) and row["other"] == pytest.approx(-0.1)


def test_pages_say_what_was_found(pipeline: Pipeline, measured: Path, tmp_path: Path) -> None:
    anatomy.ship_anatomy(pipeline, PLAN, tmp_path, measured)
    tables = anatomy.read_anatomy(tmp_path)
    parts = anatomy.parts_of(tables[anatomy.SETS], 0.05)
    html = anatomy_pages.sets_apart_table(parts, 0.05, 3).to_html()
    assert all(escape(worded(name)) in html for name in parts["criterion"])
    lead = parts.set_index("criterion")["difference"]
    said = str(anatomy_pages.parts_in_words(parts).data)
    assert f"{lead['single effects']:+.3f}".replace("-", "−") in said.replace("-", "−")
    estimated = tables[anatomy.ESTIMATES]
    best = estimated.query("language == 'all' and truth == 'necessity'")["rho"].max()
    said = str(anatomy_pages.estimates_in_words(estimated).data)
    assert f"{best:.2f}".replace("-", "−") in said.replace("-", "−")
    for figure in (
        anatomy_pages.estimates_figure(estimated),
        anatomy_pages.ceiling_figure(
            tables[anatomy.SETS], {"en": "English", "zh": "中文", "vi": "vi"}
        ),
        *anatomy_pages.windows_figures(anatomy.by_windows(tables[anatomy.NEEDED])),
    ):
        assert "<img" in figure.data or "<svg" in figure.data


def test_uses_are_a_row_per_read_out_and_candidate() -> None:
    summary = pd.DataFrame(
        {
            **{"read": ["tasks", "answers"], "model": "chat", "method": "a", "langspec_f1": 0.25},
            **{"null_mean": [0.125, 0.5], "above": [2, 0], "q": [0.04, 0.9]},
        }
    )
    html = anatomy_pages.uses_table(summary, 0.02, 3).to_html()
    said = str(anatomy_pages.uses_in_words(summary.assign(above=[3, 0]), 3).data)
    assert "tasks of the chat model: “a”" in said and "answers of the chat model: none" in said
    assert "2 of 3" in html and "0.125" in html and "0.250" in html and "0.04" in html
    rows = [("base", "a", "zh", -0.5, -0.125), ("base", "a", "en", -0.25, 0.0)]
    rows += [("base", "b", "zh", -0.001, 0.0)]
    columns = ["model", "method", "mask_language", "own", "other"]
    html = anatomy_pages.fidelity_table(pd.DataFrame(rows, columns=columns)).to_html()
    assert "-38 | -6" in html.replace("−", "-") and "0 | 0" in html
