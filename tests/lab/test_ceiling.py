"""A greedy search among a real model's neurons of which single ablations are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_pipeline import folder, settings_in

from crane_core.models import write_checksums
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.show import anatomy_pages
from crane_lab.store import Store
from crane_lab.study import ceiling, damage, necessity, real_model, sampled
from crane_lab.study.ceiling import CeilingPlan

__all__ = ["folder"]  # a fixture
PLAN = CeilingPlan(shortlist=6, steps=(1, 3), n_search=4, n_ranking=8, n_damage=4)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def shipped(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single ablations of some neurons, as `crane_lab.cli.real_model` writes them."""
    where = tmp_path_factory.mktemp("real")
    layers, width = pipeline.shape["intermediate"]
    neurons = pd.DataFrame(
        [(layer, i) for layer in range(layers) for i in range(0, width, 3)],
        columns=["layer", "neuron"],
    )
    sample = neurons.assign(criterion=sampled.RANDOM, language="", place=1)
    texts, _ = damage.held_out(pipeline, PLAN.n_ranking, PLAN.n_damage)
    set_to = {"zero": torch.zeros(layers, width)}
    found = sampled.measure_sample(pipeline.model, texts, neurons, set_to, PLAN.n_ranking, {})
    table = sampled.single_effects_table(sample, neurons, found)
    table.to_csv(where / "single_effects.csv", index=False)
    for name in ("made.json", "run.json"):
        (where / name).write_text(json.dumps(real_model.inputs(pipeline)))
    write_checksums(where)
    return where


def test_the_search_begins_with_the_best_of_the_shortlist(
    pipeline: Pipeline, shipped: Path, tmp_path: Path
) -> None:
    ceiling.ship_ceiling(pipeline, PLAN, tmp_path / "one", shipped)
    found = ceiling.read_ceiling(tmp_path / "one")
    languages = pipeline.settings.languages
    assert len(found) == 2 * len(languages) * len(PLAN.steps)
    # By hand: every neuron of the shortlist alone, on the windows that are searched.
    effects = pd.read_csv(shipped / "single_effects.csv")
    first = ceiling.selective_first(effects, "zh", languages).head(PLAN.shortlist)
    lead = effects["zero_zh"] - effects[["zero_en", "zero_vi"]].max(axis=1)
    assert list(first.index) == list(lead.sort_values(ascending=False, kind="stable").index[:6])
    texts, others = damage.held_out(pipeline, PLAN.n_ranking, PLAN.n_damage)
    alone = {}
    for layer, i in zip(first["layer"], first["neuron"], strict=True):
        at = {}
        for x, own in texts.items():
            start, after = necessity.single_effects(pipeline.model, own[:4], layer, [i])
            at[x] = float(after.mean() - start.mean())
        alone[layer, i] = at["zh"] - max(at["en"], at["vi"])
    best = max(alone, key=lambda pair: alone[pair])
    one = NeuronSet.from_pairs([best], {"intermediate": pipeline.shape["intermediate"]})
    wanted = damage.set_effects(pipeline.model, [one], others).iloc[0]
    row = found.query("criterion == 'greedy search' and language == 'zh' and budget == 1").iloc[0]
    assert row["own"] == pytest.approx(wanted["zh"], abs=1e-6)
    assert row["own"] != 0
    criteria = found[found["criterion"] == damage.SINGLE].assign(seed=-1, criterion="x")
    largest = ceiling.at_the_largest(found, pd.concat([criteria, criteria.assign(seed=0, own=9.0)]))
    assert set(largest["criterion"]) == {"x", damage.SINGLE, damage.GREEDY}
    searched = found[(found["criterion"] == damage.GREEDY) & (found["budget"] == PLAN.steps[-1])]
    mean = largest.set_index("criterion").loc[damage.GREEDY]
    assert mean["own"] == pytest.approx(searched["own"].mean())
    assert mean["difference_se"] == pytest.approx(
        np.sqrt((searched["difference_se"] ** 2).sum()) / 3
    )
    html = anatomy_pages.ceiling_table(largest).to_html()
    assert "greedy search" in html and f"{PLAN.steps[-1]} neurons" in html
    said = str(anatomy_pages.ceiling_in_words(largest).data)
    assert f"greedy search take {mean['own']:.2f} nats" in said and "of 1 criteria" in said
    ceiling.ship_ceiling(pipeline, PLAN, tmp_path / "two", shipped)
    name = ceiling.FILE
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_another_models_effects_are_refused(
    pipeline: Pipeline, shipped: Path, tmp_path: Path
) -> None:
    made = json.loads((shipped / "made.json").read_text())
    made["model"]["weights"] = "other"
    for name in ("made.json", "run.json"):
        (tmp_path / name).write_text(json.dumps(made))
    (tmp_path / "single_effects.csv").write_bytes((shipped / "single_effects.csv").read_bytes())
    write_checksums(tmp_path)
    with pytest.raises(ValueError, match="another model"):
        ceiling.ship_ceiling(pipeline, PLAN, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="--ceiling"):
        ceiling.read_ceiling(tmp_path / "out")
