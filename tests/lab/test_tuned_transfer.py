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
from crane_lab.study.tuned_transfer import (
    FILE,
    TransferPlan,
    read_transfer,
    ship_transfer,
    transfer_summary,
)
from crane_lab.tuning.training import TuningRecipe

__all__ = ["folder"]  # a fixture
PLAN = TransferPlan(
    ("LAPE matched", "CRANE"), 2, 3, questions=4, recipe=TuningRecipe(items=8, epochs=1)
)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned") / "model"  # which is not there yet


@pytest.fixture(scope="module")
def shipped(pipeline: Pipeline, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    ship_transfer(pipeline, checkpoint, PLAN, out)
    return out


def test_the_same_neurons_are_masked_in_both_models(
    pipeline: Pipeline, checkpoint: Path, shipped: Path
) -> None:
    found = read_transfer(shipped)
    table, shared = found.table, found.shared
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
    assert set(random["found"]) == {"base", "tuned"} and set(random["draw"]) == {0, 1}
    assert found.made["inputs"]["recipe"]["items"] == 8
    levels = found.levels.set_index(["model", "language"])
    assert levels["loss"]["tuned", "en"] != levels["loss"]["base", "en"]
    assert levels["exact"].between(0, 1).all()


def test_it_goes_on_from_what_is_there(pipeline: Pipeline, checkpoint: Path, shipped: Path) -> None:
    before = (shipped / FILE).read_bytes()
    ship_transfer(pipeline, checkpoint, PLAN, shipped)
    assert (shipped / FILE).read_bytes() == before


def test_the_summary_stands_beside_random_sets_of_the_same_model(shipped: Path) -> None:
    found = read_transfer(shipped)
    table, shared = found.table, found.shared
    summary = transfer_summary(table)
    assert len(summary) == 2 * 3 * 3
    assert (summary["draws"] == 2).all() and summary["random"].notna().all()
    at_home = summary[summary["found"] == "base"]
    row = at_home[(at_home["model"] == "tuned") & (at_home["method"] == "CRANE")].iloc[0]
    drawn = table[
        (table["model"] == "tuned")
        & (table["found"] == "base")
        & (table["method"] == f"{RANDOM} as CRANE")
        & (table["of"] == row["of"])
        & (table["language"] == row["of"])
    ]["added"]
    assert row["random"] == pytest.approx(drawn.mean()) and row["most"] == drawn.max()
    page.tuned_levels_table(found.levels)
    page.transfer_losses_table(summary, shared)
    assert "CRANE" in page.tuning_leaves_in_words(summary, shared).data


def test_an_unknown_method_is_named_before_anything_is_masked(
    pipeline: Pipeline, checkpoint: Path, shipped: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="unknown method 'LAPES'"):
        ship_transfer(pipeline, checkpoint, TransferPlan(("LAPES",)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_it_is_told_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--transfer"):
        read_transfer(tmp_path)
