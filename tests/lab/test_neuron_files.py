"""Sets of neurons in the formats of other programs."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_core.neurons import NeuronSet
from crane_lab.store.neuron_files import (
    LAPE_LANGUAGES,
    load_json,
    load_lape_file,
    save_json,
    save_lape_file,
)

SHAPE = {"intermediate": (3, 6), "gate": (3, 6), "up": (3, 6), "down": (3, 4)}
LAPE_FILE = Path(__file__).resolve().parents[3] / "shared/reference/lape/LLaMA-2-7B.neuron.pth"
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


def test_lape_files_round_trip(tmp_path):
    path = tmp_path / "sets.pth"
    sets = {
        "en": NeuronSet.from_pairs([(0, 1), (2, 5)], SHAPE),
        "zh": NeuronSet.empty(SHAPE),
        "vi": NeuronSet.from_pairs([(1, 0)], SHAPE),
    }
    save_lape_file(sets.values(), path)
    content = torch.load(path, weights_only=True)
    assert [[row.tolist() for row in layers] for layers in content] == [
        [[1], [], [5]],
        [[], [], []],
        [[], [0], []],
    ]
    assert content[0][0].dtype == torch.long
    assert load_lape_file(path, SHAPE, ["en", "zh", "vi"]) == sets


def test_lape_files_that_do_not_fit(tmp_path):
    path = tmp_path / "sets.pth"
    with pytest.raises(FileNotFoundError):
        load_lape_file(path, SHAPE)
    save_lape_file([NeuronSet.from_pairs([(0, 5)], SHAPE)], path)
    with pytest.raises(ValueError, match="holds 1 languages, but 7"):
        load_lape_file(path, SHAPE)
    with pytest.raises(ValueError, match="3 layers, but the model has 2"):
        load_lape_file(path, (2, 6), ["en"])
    with pytest.raises(ValueError, match="outside"):
        load_lape_file(path, (3, 5), ["en"])
    torch.save({"en": 1}, path)
    with pytest.raises(ValueError, match="not in LAPE's format"):
        load_lape_file(path, SHAPE, ["en"])
    path.write_bytes(b"no file of torch")
    with pytest.raises(ValueError, match="read safely"):
        load_lape_file(path, SHAPE, ["en"])
    with pytest.raises(ValueError, match=r"intermediate neurons only.*'down'"):
        save_lape_file([NeuronSet.from_pairs([(0, 0)], SHAPE, "down")], path)


@pytest.mark.skipif(not LAPE_FILE.exists(), reason="LAPE's released file is not on this machine")
def test_lapes_released_sets():
    sets = load_lape_file(LAPE_FILE, (32, 11008))
    assert tuple(sets) == LAPE_LANGUAGES
    assert {x: len(sets[x]) for x in ("en", "zh", "vi")} == {
        "en": 95,
        "zh": 583,
        "vi": 836,
    }
    # The released README gives these three as an example.
    assert [neuron for layer, neuron in sets["zh"] if layer == 4] == [6147, 9114, 9292]
