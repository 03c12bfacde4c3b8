"""Random masks with a set's size in every layer: measured, shipped, and found again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_pipeline import folder, settings_in

from crane_core.baselines import random_matched
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import Store
from crane_lab.study import nulls

ROOT = Path(__file__).resolve().parents[2]
__all__ = ["folder"]  # a fixture


@pytest.fixture
def pipeline(folder: Path, tmp_path: Path) -> Pipeline:
    settings = settings_in(folder, random_seeds=(0,), task_limit=2, n_perplexity=2)
    return Pipeline(settings, Store(tmp_path / "store"))


def some(pipeline: Pipeline, *neurons: tuple[int, int]) -> NeuronSet:
    return NeuronSet.from_pairs(neurons, pipeline.shape)


def test_a_null_depends_on_the_counts_alone(pipeline: Pipeline) -> None:
    one, other = some(pipeline, (0, 1), (0, 2), (1, 5)), some(pipeline, (0, 3), (0, 9), (1, 0))
    assert nulls.profile(one) == nulls.profile(other)
    assert nulls.profile(one).startswith("intermediate 2 1")
    found = nulls.random_masks(pipeline, "losses", one, 12)
    pd.testing.assert_frame_equal(found, nulls.random_masks(pipeline, "losses", other, 12))
    assert found["seed"].tolist() == list(range(nulls.FIRST_SEED, nulls.FIRST_SEED + 12))
    mask = pipeline.masking(random_matched(one, nulls.FIRST_SEED + 3), "zero")
    before, after = pipeline.losses(), pipeline.losses(mask)
    for x in pipeline.settings.languages:
        assert found[x].iloc[3] == pytest.approx(float((after[x] - before[x]).double().mean()))
    assert found[list(pipeline.settings.languages)].abs().to_numpy().max() > 0


def test_accuracies_of_random_masks(pipeline: Pipeline) -> None:
    neurons = some(pipeline, (0, 1), (1, 5))
    found = nulls.random_masks(pipeline, "tasks", neurons, 2)
    items = pipeline.items(pipeline.masking(random_matched(neurons, nulls.FIRST_SEED), "zero"))
    expected = items.groupby("task")["correct"].mean()
    assert set(found) == {"seed", *expected.index}
    for task, share in expected.items():
        assert found[str(task)].iloc[0] == pytest.approx(share)


def test_what_is_shipped_is_used_where_it_fits(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neurons, unlike = some(pipeline, (0, 1), (1, 5)), some(pipeline, (0, 1))
    nulls.ship_nulls(pipeline, "losses", [neurons, some(pipeline, (0, 7), (1, 2))], 3, tmp_path)
    shipped = pd.read_csv(tmp_path / "null_losses.csv")
    assert len(shipped) == 3  # two sets with one profile
    asked: list[int] = []

    def random_masks(pipeline: Pipeline, kind: str, neurons: NeuronSet, n: int) -> pd.DataFrame:
        asked.append(n)
        return pd.DataFrame()

    monkeypatch.setattr(nulls, "random_masks", random_masks)
    found = nulls.Nulls.of(pipeline, tmp_path, 7)
    assert len(found.table("losses", neurons)) == 3 and not asked
    found.table("losses", unlike)
    found.table("tasks", neurons)
    nulls.Nulls.of(pipeline.changed(n_perplexity=1), tmp_path, 4).table("losses", neurons)
    assert asked == [7, 7, 4]


def test_a_shipped_null_grows_by_the_masks_it_lacks(pipeline: Pipeline, tmp_path: Path) -> None:
    first, other = some(pipeline, (0, 1), (1, 5)), some(pipeline, (0, 1))
    nulls.ship_nulls(pipeline, "losses", [first], 3, tmp_path)
    before = pd.read_csv(tmp_path / "null_losses.csv")
    nulls.ship_nulls(pipeline, "losses", [first, other], 5, tmp_path)
    after = pd.read_csv(tmp_path / "null_losses.csv")
    own = after[after["profile"] == nulls.profile(first)]
    pd.testing.assert_frame_equal(own.head(3), before)
    whole = nulls.random_masks(pipeline, "losses", first, 5)
    pd.testing.assert_frame_equal(own.drop(columns="profile"), whole, check_exact=False, atol=1e-6)
    nulls.ship_nulls(pipeline, "losses", [other], 2, tmp_path)  # nothing is lost by asking for less
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "null_losses.csv"), after)


def test_rows_have_nulls_and_random_ones_none(pipeline: Pipeline) -> None:
    rows = pipeline.rows("intermediate")
    found = nulls.Nulls(pipeline, {"losses": 1}).of_rows("losses", rows)
    wanted = {(row.method, row.language) for row in rows if row.seed is None and row.n_neurons}
    assert set(found) == wanted and not any(method == "Random" for method, _ in found)
    assert not nulls.Nulls(pipeline, {"losses": 0}).of_rows("losses", rows)  # none asked for


def test_an_empty_set_has_no_null(pipeline: Pipeline) -> None:
    assert nulls.random_masks(pipeline, "losses", NeuronSet.empty(pipeline.shape), 5).empty


def test_what_is_shipped_is_of_the_testbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    base = Pipeline(Settings(), Store(tmp_path))
    found = nulls.Nulls.of(base, "data/testbed", 0).shipped
    in_chat = nulls.Nulls.of(base.on_chat("data/testbed/chat"), "data/testbed", 0).shipped
    shipped = {file.stem for file in Path("data/testbed").glob("null_*.csv")}
    assert {f"null_{kind}" for kind in found} | {f"null_{kind}_chat" for kind in in_chat} == shipped
    for kind, table, least in (
        ("losses", found, 200),
        ("tasks", found, 100),
        ("grades", found, 60),
        ("tasks", in_chat, 60),
        ("grades", in_chat, 60),
    ):
        counts = table[kind]["profile"].value_counts()
        inner = counts[counts.index.str.startswith("intermediate")]
        # Two of nine sets have one profile; two methods of 12b have fewer, of losses alone.
        neighbours = 6 if kind == "losses" else 0
        assert len(inner) == 8 + neighbours and inner.min() >= min(least, 40)
        assert inner.nlargest(8).min() >= least
