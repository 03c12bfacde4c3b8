"""Neurons tuned on text in their language: what is trained, kept, and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_pipeline import folder, settings_in

from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.store import Store
from crane_lab.study.text_taught import (
    TextTeaching,
    read_text_taught,
    ship_text_taught,
    text_effects,
    tuned_on_text,
)
from crane_lab.tuning.training import TuningRecipe

__all__ = ["folder"]  # a fixture
RECIPE = TuningRecipe(items=6, epochs=1, batch=3, rank=2, learning_rate=0.05)
PLAN = TextTeaching(seeds=1, draws=1, n_windows=3, n_questions=2, recipe=RECIPE)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    settings = settings_in(folder, random_seeds=(0,), task_limit=2, n_perplexity=2)
    return Pipeline(settings, Store(tmp_path_factory.mktemp("store")))


def test_only_what_is_trained_changes_the_loss_and_the_model_stays(pipeline: Pipeline) -> None:
    before = {name: value.clone() for name, value in pipeline.model.state_dict().items()}
    x = pipeline.settings.languages[-1]
    none = tuned_on_text(pipeline, RECIPE, NeuronSet.empty(pipeline.shape), x, 3, 2)
    every = tuned_on_text(pipeline, RECIPE, None, x, 3, 2)
    assert set(none["text"]) == {*pipeline.settings.languages, f"questions {x}"}
    own = every["text"] == x
    assert (every[own]["value"].to_numpy() != none[own]["value"].to_numpy()).all()
    other = TuningRecipe(items=6, epochs=1, batch=3, rank=2, learning_rate=0.01, seed=5)
    again = tuned_on_text(pipeline, other, NeuronSet.empty(pipeline.shape), x, 3, 2)
    assert again.equals(none)  # nothing is trained, under any recipe
    after = pipeline.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_wrong_is_refused(pipeline: Pipeline) -> None:
    x = pipeline.settings.languages[0]
    with pytest.raises(ValueError, match="n_questions is 0"):
        tuned_on_text(pipeline, RECIPE, None, x, 3, 0)
    with pytest.raises(ValueError, match="'fr' has no stories"):
        tuned_on_text(pipeline, RECIPE, None, "fr", 3, 2)
    for plan, said in (
        (TextTeaching(n_questions=601), "n_questions is 601"),
        (TextTeaching(recipe=TuningRecipe(rank=10_000)), "rank is 10000"),
        (TextTeaching(n_windows=10**6), "windows"),
    ):
        with pytest.raises(ValueError, match=said):
            ship_text_taught(pipeline, plan, "never")
    assert not Path("never").exists()
    with pytest.raises(FileNotFoundError, match="recompute_taught"):
        read_text_taught(pipeline, "data/nothing")


def test_the_table_has_every_set_and_goes_on(pipeline: Pipeline, tmp_path: Path) -> None:
    ship_text_taught(pipeline, PLAN, tmp_path)
    first, made = read_text_taught(pipeline, tmp_path)
    differing = {"recipe", "n_windows", "n_questions", "items"}
    assert set(made["differing"]) == differing  # this plan's are small
    languages = list(pipeline.settings.languages)
    assert not first.duplicated(["method", "of", "draw", "seed", "language"]).any()
    assert {"none", "all", "CRANE", "Random as CRANE"} <= set(first["method"])
    assert set(first["of"]) == set(languages) - {PLAN.source}
    assert (first[first["method"] == "none"]["change"] == 0).all()
    assert (first["exact"].notna() == (first["of"] == first["language"])).all()
    written = (tmp_path / "lsn_text.csv").read_bytes()
    ship_text_taught(pipeline, PLAN, tmp_path)
    assert (tmp_path / "lsn_text.csv").read_bytes() == written
    more = TextTeaching(seeds=2, draws=1, n_windows=3, n_questions=2, recipe=RECIPE)
    ship_text_taught(pipeline, more, tmp_path)
    found, _ = read_text_taught(pipeline, tmp_path)
    assert len(found) == 2 * len(first) and found[: len(first)].equals(first)


def made_up(effect: float, draws: int = 4, seeds: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        base = rng.normal(0, 0.01)
        for method, draw, change in [
            ("none", -1, 0.0),
            ("CRANE", -1, effect + base),
            *(("Random as CRANE", d, base + rng.normal(0, 0.003)) for d in range(draws)),
        ]:
            row = {"method": method, "of": "zh", "draw": draw, "n_neurons": 5, "seed": seed}
            row |= {"language": "zh", "loss": 1 + change, "change": change, "error": 0.001}
            rows.append({**row, "exact": 0.5})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("effect", "beyond"), [(-0.1, True), (0.0, False)])
def test_a_set_is_held_against_random_ones_in_the_same_trainings(
    effect: float, beyond: bool
) -> None:
    found = text_effects(made_up(effect)).set_index("method")
    row = found.loc["CRANE"]
    assert row["beyond"] == pytest.approx(-effect, abs=0.005) and row["draws"] == 4
    assert (row["beyond_low"] > 0) == beyond and row["low"] < row["change"] < row["high"]
    assert found.loc["none", ["low", "high"]].eq(0).all()
    assert np.isnan(text_effects(made_up(effect, draws=1))["beyond_low"].iloc[-1])
    assert row["random_exact"] == 0.5


def test_only_complete_trainings_are_compared() -> None:
    whole, table = made_up(-0.1, seeds=4), made_up(-0.1)
    late = (table["seed"] == 4) & (table["draw"] > 1)  # the last training is under way
    found = text_effects(table[~late]).set_index("method")["beyond"]["CRANE"]
    assert found == pytest.approx(text_effects(whole).set_index("method")["beyond"]["CRANE"])
