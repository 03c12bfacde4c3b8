"""Sets of neurons as plain JSON."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_core.neurons import NeuronSet
from crane_lab.store.neuron_files import load_json, save_json, save_lape_file

SHAPE = {"intermediate": (3, 6), "gate": (3, 6), "up": (3, 6), "down": (3, 4)}
neuron_pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=18)


@settings(max_examples=10, deadline=None)
@given(neuron_pairs)
def test_json_round_trip(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("sets") / "set.json"
    neurons = NeuronSet.from_pairs(pairs, SHAPE) | NeuronSet.from_pairs([(1, 3)], SHAPE, "down")
    save_json(neurons, path)
    assert load_json(path) == neurons
    assert json.loads(path.read_text())["neurons"]["down"] == [[1, 3]]


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"shape": {"intermediate": [3, 6]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [[3, 0]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"gate": [[0, 0]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [0, 1]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [[0, -1]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [[0, 1.0]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [[0, 1.5]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [[0, true]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [[0, NaN]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [["0", "1"]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": ["01"]}}',
        '{"shape": {"intermediate": [3.0, 6]}, "neurons": {"intermediate": []}}',
        '{"shape": {"intermediate": [3, true]}, "neurons": {"intermediate": []}}',
        '{"shape": {"intermediate": [1000000000, 1000000000]}, "neurons": {}}',
        "[" * 100_000,
    ],
)
def test_json_that_is_no_neuron_set(tmp_path, text):
    path = tmp_path / "set.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds no neuron set; expected"):
        load_json(path)


def test_json_with_a_mark_of_its_order(tmp_path):
    """As Windows' editors save it."""
    neurons = NeuronSet.from_pairs([(0, 1)], (3, 6))
    save_json(neurons, tmp_path / "plain.json")
    (tmp_path / "bom.json").write_text((tmp_path / "plain.json").read_text(), "utf-8-sig")
    assert load_json(tmp_path / "bom.json") == neurons


def test_lape_files_of_several_languages(tmp_path):
    path = tmp_path / "sets.pth"
    sets = {
        "en": NeuronSet.from_pairs([(0, 1), (2, 5)], SHAPE),
        "zh": NeuronSet.empty(SHAPE),
        "vi": NeuronSet.from_pairs([(1, 0)], SHAPE),
    }
    save_lape_file(sets, path)
    content = torch.load(path, weights_only=True)
    assert [[row.tolist() for row in layers] for layers in content] == [
        [[1], [], [5]],
        [[], [], []],
        [[], [0], []],
    ]
    assert content[0][0].dtype == torch.long
    assert NeuronSet.from_lape_file(path, ["en", "zh", "vi"], shape=SHAPE) == sets
    assert NeuronSet.from_lape_file(path, 2, shape=SHAPE) == sets["vi"]
