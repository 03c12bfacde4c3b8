"""A new statistic, mask value or row of Table 1 is one entry in one place, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from test_pipeline import LANGUAGES, folder, settings_in

from crane_core import accumulators, concentration
from crane_core.concentration import Statistic
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import TABLES, Pipeline
from crane_lab.stages import methods
from crane_lab.stages.identification import Identification
from crane_lab.store import Store
from crane_lab.study import choices

__all__ = ["folder"]  # a fixture: the model, corpora and tasks made up in test_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of", "ignore:.*no neuron")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def test_a_new_statistic(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def root_mean_square(collected: concentration.Collected) -> torch.Tensor:
        return (collected.sum_square / collected.count).sqrt()

    new = Statistic(root_mean_square, "root mean square", "how much relevance", "size", least=1)
    monkeypatch.setitem(concentration.STATISTICS, "rms", new)
    found = Pipeline(settings_in(folder, statistic="rms"), store)
    own: Any = found.statistic()
    for x in LANGUAGES:
        expected = root_mean_square(found.collected(x)["intermediate"])
        assert torch.equal(own[x], expected)
    sets = found.neuron_sets()
    assert {r.language: r.neurons for r in found.rows() if r.method == "CRANE"} == sets
    assert any(len(neurons) for neurons in sets.values())
    # The studies of statistics have it, too.
    compared = choices.compare_statistics(choices.probe(settings_in(folder), store), n_boot=5)
    assert set(compared.query("statistic == 'rms'")["how"]) == {"alone", "contrast"}


def test_a_new_mask_value(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        accumulators.NEURON_VALUES, "median", lambda means, sample: sample.quantiles([0.5])[0]
    )
    found = Pipeline(settings_in(folder, mask_value="median"), store)
    row = next(r for r in found.rows() if r.method == "CRANE" and r.n_neurons)
    (step,) = row.intervention.steps
    seen = []
    handle = found.model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].flatten(0, 1))
    )
    with torch.no_grad():
        for windows in found.windows.values():
            found.model(input_ids=windows)
    handle.remove()
    assert isinstance(step.value, dict)
    median = torch.cat(seen).quantile(0.5, dim=0)
    torch.testing.assert_close(step.value["intermediate"][1], median, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found.losses(row.intervention)["en"], found.losses()["en"])


def test_a_new_row_of_table_1(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_ones(of: Identification, crane: Mapping[str, NeuronSet]) -> dict[str, NeuronSet]:
        return {
            x: NeuronSet.from_pairs([(0, i) for i in range(len(neurons))], of.shape)
            for x, neurons in crane.items()
        }

    monkeypatch.setitem(methods.METHODS, "First", first_ones)
    found = Pipeline(settings_in(folder, languages=("en", "zh"), random_seeds=(0,)), store)
    crane = found.neuron_sets()
    table = found.evaluated(found.rows(), losses=False).table(TABLES["paper"], n_boot=5)
    names = list(dict.fromkeys(table["method"]))
    assert names == ["Org", "LAPE", "LAPE matched", "CRANE", "First", "Random"]
    own = table[table["method"] == "First"].set_index("mask_language")
    assert own["n_neurons"].to_dict() == {x: len(neurons) for x, neurons in crane.items()}
    assert "First" not in {row.method for row in found.rows("projections")}
    monkeypatch.setattr(methods, "AT_ANY_SITE", (*methods.AT_ANY_SITE, "First"))
    assert "First" in {row.method for row in found.rows("projections")}
