"""From a base model to a tuned one: which neurons are masked where, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_pipeline import folder, settings_in

from crane_core.interventions import intervened, zero
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.show import taught_pages as page
from crane_lab.store import Store
from crane_lab.study.contenders import contenders
from crane_lab.study.taught import RANDOM
from crane_lab.study.tuned import save_tuned
from crane_lab.study.tuned_transfer import (
    FILE,
    TransferPlan,
    read_transfer,
    ship_transfer,
    transfer_summary,
)
from crane_lab.tuning.training import TuningRecipe

__all__ = ["folder"]  # a fixture
PLAN = TransferPlan(methods=("LAPE matched", "CRANE"), draws=2, windows=3)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def checkpoint(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "model"
    save_tuned(pipeline, TuningRecipe(items=8, epochs=1), out)
    return out


@pytest.fixture(scope="module")
def shipped(pipeline: Pipeline, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    ship_transfer(pipeline, checkpoint, PLAN, out)
    return out


def test_the_same_neurons_are_masked_in_both_models(
    pipeline: Pipeline, checkpoint: Path, shipped: Path
) -> None:
    table, shared, _ = read_transfer(shipped)
    sets = contenders(pipeline)
    row = table[(table["method"] == "CRANE") & (table["of"] == "zh") & (table["found"] == "base")]
    assert set(row["model"]) == {"base", "tuned"}
    assert set(row["n_neurons"]) == {len(sets["CRANE"]["zh"])}
    tuned = pipeline.changed(model=str(checkpoint))
    windows = tuned.perplexity_windows["zh"][:3]
    with intervened(tuned.model, zero(sets["CRANE"]["zh"])):
        loss = perplexity(tuned.model, windows).loss
    own = row[(row["model"] == "tuned") & (row["language"] == "zh")].iloc[0]
    assert own["loss"] == pytest.approx(loss, abs=1e-5)
    assert own["added"] == pytest.approx(loss - perplexity(tuned.model, windows).loss, abs=1e-5)
    assert len(shared) == 2 * 3
    random = table[table["method"] == f"{RANDOM} as CRANE"]
    assert set(random["found"]) == {"base"} and set(random["draw"]) == {0, 1}


def test_it_goes_on_from_what_is_there(pipeline: Pipeline, checkpoint: Path, shipped: Path) -> None:
    before = (shipped / FILE).read_bytes()
    ship_transfer(pipeline, checkpoint, PLAN, shipped)
    assert (shipped / FILE).read_bytes() == before


def test_the_summary_stands_beside_random_sets_of_the_same_model(shipped: Path) -> None:
    table, shared, _ = read_transfer(shipped)
    summary = transfer_summary(table)
    assert len(summary) == 2 * 3 * 3
    at_home = summary[summary["found"] == "base"]
    assert (at_home["draws"] == 2).all() and at_home["random"].notna().all()
    assert (summary[summary["found"] == "tuned"]["draws"] == 0).all()
    row = at_home[(at_home["model"] == "tuned") & (at_home["method"] == "CRANE")].iloc[0]
    drawn = table[
        (table["model"] == "tuned")
        & (table["method"] == f"{RANDOM} as CRANE")
        & (table["of"] == row["of"])
        & (table["language"] == row["of"])
    ]["added"]
    assert row["random"] == pytest.approx(drawn.mean()) and row["most"] == drawn.max()
    page.transfer_losses_table(summary, shared)
    assert "CRANE" in page.tuning_leaves_in_words(summary, shared).data


def test_a_folder_without_it_is_told_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--transfer"):
        read_transfer(tmp_path)
