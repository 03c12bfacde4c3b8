from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from crane_core import models
from crane_core.attribution import neuron_relevance
from crane_core.masking import bake, masked
from crane_core.neurons import NeuronSet

Make = Callable[..., LlamaForCausalLM]
Batch = tuple[Tensor, Tensor]
SITES = ("intermediate", "gate", "up", "down")


def some(model: LlamaForCausalLM, *sites: str, seed: int = 0, share: float = 0.2) -> NeuronSet:
    """A random share of the neurons of the given sites; layer 1 is left alone."""
    generator = torch.Generator().manual_seed(seed)
    shape = models.shape(model)
    masks = {site: torch.rand(shape[site], generator=generator) < share for site in sites}
    for mask in masks.values():
        mask[1] = False
    return NeuronSet(masks, shape)


@torch.no_grad()
def logits(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    out: Tensor = model(input_ids=batch[0], attention_mask=batch[1]).logits[batch[1].bool()]
    return out


def replaced_by_hand(
    model: LlamaForCausalLM, neurons: NeuronSet, values: dict[str, Tensor], batch: Batch
) -> Tensor:
    """The masked forward pass written out another way: MLPs computed from their definition."""
    masks = neurons.masks

    def put(site: str, layer: int, x: Tensor) -> Tensor:
        x = x.clone()
        for i in masks[site][layer].nonzero()[:, 0].tolist():
            x[..., i] = values[site][layer, i]
        return x

    def forward(layer: int, mlp: Any) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            gate, up = put("gate", layer, mlp.gate_proj(x)), put("up", layer, mlp.up_proj(x))
            inner = put("intermediate", layer, nn.functional.silu(gate) * up)
            return put("down", layer, mlp.down_proj(inner))

        return run

    for layer, block in enumerate(model.model.layers):
        block.mlp.forward = forward(layer, block.mlp)
    try:
        return logits(model, batch)
    finally:
        for block in model.model.layers:
            del block.mlp.forward


def zeros(model: LlamaForCausalLM) -> dict[str, Tensor]:
    return {site: torch.zeros(size) for site, size in models.shape(model).items()}


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.fixture(params=["weights", "hooks"])
def mechanism(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of masking with zero; the second is what shared or quantised weights get."""
    if request.param == "hooks":
        monkeypatch.setattr("crane_core.interventions.own_weights", lambda model, neurons: False)
    return request.param


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("sites", [*[(site,) for site in SITES], SITES])
def test_zero(
    make_llama: Make, tiny_batch: Batch, mechanism: str, sites: tuple[str, ...], biases: bool
) -> None:
    model = make_llama(mlp_bias=biases)
    neurons = some(model, *sites)
    before, weights = logits(model, tiny_batch), models.fingerprint(model)
    expected = replaced_by_hand(model, neurons, zeros(model), tiny_batch)
    with masked(model, neurons) as same:
        assert same is model
        assert (hooks(model) > 0) == (mechanism == "hooks")
        assert (models.fingerprint(model) != weights) == (mechanism == "weights")
        found = logits(model, tiny_batch)
    assert torch.equal(found, expected)
    assert (found - before).abs().max() > 1e-2
    assert models.fingerprint(model) == weights
    assert hooks(model) == 0
    assert torch.equal(logits(model, tiny_batch), before)


def test_one_intervention_at_three_sites(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    """Zero at gate output i, up output i and intermediate unit i is the same: SiLU(0) = 0."""
    shape = models.shape(tiny_llama)
    pairs = [(0, 3), (0, 40), (2, 7)]
    results = []
    for site in ("intermediate", "gate", "up"):
        with masked(tiny_llama, NeuronSet.from_pairs(pairs, shape, site)):
            results.append(logits(tiny_llama, tiny_batch))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), site=st.sampled_from(SITES), number=st.floats(-2, 2))
def test_other_values(make_llama: Make, tiny_batch: Batch, seed: int, site: str, number: float):
    model = make_llama()
    neurons = some(model, site, seed=seed)
    weights = models.fingerprint(model)
    generator = torch.Generator().manual_seed(seed)
    table = {s: torch.randn(size, generator=generator) for s, size in models.shape(model).items()}
    for value, values in (
        (table, table),
        (number, {s: torch.full_like(t, number) for s, t in table.items()}),
    ):
        expected = replaced_by_hand(model, neurons, values, tiny_batch)
        with masked(model, neurons, value):
            assert torch.equal(logits(model, tiny_batch), expected)
    assert hooks(model) == 0
    assert models.fingerprint(model) == weights


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_restored_after_an_error(tiny_llama: LlamaForCausalLM, value: float) -> None:
    weights = models.fingerprint(tiny_llama)
    with pytest.raises(KeyError), masked(tiny_llama, some(tiny_llama, *SITES), value):
        raise KeyError("in the middle")
    assert models.fingerprint(tiny_llama) == weights
    assert hooks(tiny_llama) == 0


def test_restores_negative_zero_and_nan(tiny_llama: LlamaForCausalLM) -> None:
    with torch.no_grad():
        weight = tiny_llama.model.layers[0].mlp.down_proj.weight
        weight[0, :3] = torch.tensor([-0.0, float("nan"), float("inf")])
    before = models.fingerprint(tiny_llama)
    neurons = NeuronSet.from_pairs([(0, 0), (0, 1), (0, 2)], models.shape(tiny_llama))
    with masked(tiny_llama, neurons):
        assert weight[:, :3].count_nonzero() == 0
    assert models.fingerprint(tiny_llama) == before


def test_nested_masks_are_a_union(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, mechanism: str
) -> None:
    one, two = some(tiny_llama, *SITES, seed=1), some(tiny_llama, *SITES, seed=2)
    assert len(one & two) > 0
    with masked(tiny_llama, one | two):
        expected = logits(tiny_llama, tiny_batch)
    with masked(tiny_llama, one):
        alone = logits(tiny_llama, tiny_batch)
        with masked(tiny_llama, two):
            assert torch.equal(logits(tiny_llama, tiny_batch), expected)
        assert torch.equal(logits(tiny_llama, tiny_batch), alone)
    assert not torch.equal(alone, expected)


def test_zero_and_a_value_nested(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    shape = models.shape(tiny_llama)
    off = NeuronSet.from_pairs([(0, 1), (2, 5)], shape)
    fixed = NeuronSet.from_pairs([(0, 2), (1, 5)], shape)
    values = zeros(tiny_llama)
    values["intermediate"][0, 2] = values["intermediate"][1, 5] = 0.7
    expected = replaced_by_hand(tiny_llama, off | fixed, values, tiny_batch)
    for sets in (((off, 0.0), (fixed, 0.7)), ((fixed, 0.7), (off, 0.0))):
        (outer, a), (inner, b) = sets
        with masked(tiny_llama, outer, a), masked(tiny_llama, inner, b):
            assert torch.equal(logits(tiny_llama, tiny_batch), expected)


def test_empty_set_changes_nothing(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    before, weights = logits(tiny_llama, tiny_batch), models.fingerprint(tiny_llama)
    with masked(tiny_llama, NeuronSet.empty(models.shape(tiny_llama))):
        assert torch.equal(logits(tiny_llama, tiny_batch), before)
        assert models.fingerprint(tiny_llama) == weights


def test_shared_weights_are_left_alone(make_llama: Make, tiny_batch: Batch, tmp_path: Path) -> None:
    """Two layers with one down_proj: masking a neuron of one must not mask it in the other."""
    model = make_llama()
    model.model.layers[2].mlp.down_proj.weight = model.model.layers[0].mlp.down_proj.weight
    neurons = some(model, "intermediate", "down")
    expected = replaced_by_hand(model, neurons, zeros(model), tiny_batch)
    weights = models.fingerprint(model)
    with masked(model, neurons):
        assert torch.equal(logits(model, tiny_batch), expected)
        assert models.fingerprint(model) == weights
    with pytest.raises(ValueError, match="shared with other layers"):
        bake(model, neurons, tmp_path / "baked")
    assert not list(tmp_path.iterdir())


def test_attribution_of_a_masked_model(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, mechanism: str
) -> None:
    neurons = some(tiny_llama, "intermediate")
    with masked(tiny_llama, neurons):
        relevance = neuron_relevance(tiny_llama, *tiny_batch)
    off = neurons.mask("intermediate")
    assert relevance[:, off].count_nonzero() == 0
    assert relevance[:, ~off].count_nonzero() > 0


def test_bfloat16(make_llama: Make, tiny_batch: Batch) -> None:
    model = make_llama().to(torch.bfloat16)
    neurons, weights = some(model, *SITES), models.fingerprint(model)
    for value in (0.0, 0.5):
        table = {s: torch.full(size, value) for s, size in models.shape(model).items()}
        expected = replaced_by_hand(model, neurons, table, tiny_batch)
        with masked(model, neurons, value):
            assert torch.equal(logits(model, tiny_batch), expected)
    assert models.fingerprint(model) == weights


# --- baking -------------------------------------------------------------------------------------


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("biases", [False, True])
def test_baked_is_masked(make_llama: Make, tiny_batch: Batch, tmp_path: Path, biases: bool) -> None:
    model = make_llama(mlp_bias=biases, tie_word_embeddings=True)
    neurons, weights = some(model, *SITES), models.fingerprint(model)
    with masked(model, neurons):
        expected = logits(model, tiny_batch)
    folder = bake(model, neurons, tmp_path / "in" / "baked", Tokenizer())
    assert models.fingerprint(model) == weights
    assert {p.name for p in folder.parent.iterdir()} == {"baked"}
    models.verify_checksums(folder)
    assert (folder / "tokenizer.json").is_file()
    baked = LlamaForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(baked, tiny_batch), expected)


def test_bake_leaves_nothing_half_written(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError("disk full")

    neurons, weights = some(tiny_llama, "gate"), models.fingerprint(tiny_llama)
    with pytest.raises(OSError, match="disk full"):
        bake(tiny_llama, neurons, tmp_path / "baked", Broken())
    assert not list(tmp_path.iterdir())
    assert models.fingerprint(tiny_llama) == weights


def test_bake_refuses(tiny_llama: LlamaForCausalLM, tmp_path: Path) -> None:
    neurons = some(tiny_llama, "gate")
    with pytest.raises(ValueError, match="only zero can be baked"):
        bake(tiny_llama, neurons, tmp_path / "baked", value=0.5)
    with pytest.raises(ValueError, match="only zero can be baked"):
        bake(tiny_llama, neurons, tmp_path / "baked", value=zeros(tiny_llama))
    (tmp_path / "baked").mkdir()
    (tmp_path / "baked" / "mine").touch()
    with pytest.raises(FileExistsError, match="exists already"):
        bake(tiny_llama, neurons, tmp_path / "baked")
    assert (tmp_path / "baked" / "mine").is_file()


# --- bad input ----------------------------------------------------------------------------------


def test_set_of_another_model(make_llama: Make, tiny_llama: LlamaForCausalLM, tmp_path: Path):
    weights = models.fingerprint(tiny_llama)
    for other in (make_llama(intermediate_size=40), make_llama(num_hidden_layers=2)):
        neurons = some(other, "intermediate", share=0.9)
        with pytest.raises(ValueError, match="different models"), masked(tiny_llama, neurons):
            pass
        with pytest.raises(ValueError, match="different models"):
            bake(tiny_llama, neurons, tmp_path / "baked")
    assert models.fingerprint(tiny_llama) == weights


def test_bad_values(tiny_llama: LlamaForCausalLM) -> None:
    neurons = some(tiny_llama, "gate")
    full = torch.zeros(3, 48)
    first = neurons.pairs("gate")[0]
    broken = full.clone()
    broken[first] = float("nan")
    cases: list[tuple[Any, type[Exception], str]] = [
        (float("nan"), ValueError, "a finite number is needed"),
        ("zero", TypeError, "must be a number or a dict"),
        ({"up": full}, ValueError, "no value is given there"),
        ({"gate": full[:2]}, ValueError, r"have shape \(2, 48\); \(layers, width\) is \(3, 48\)"),
        ({"gate": broken}, ValueError, rf"not finite for neuron \(layer, neuron\) \[{first[0]}, "),
    ]
    for value, error, message in cases:
        with pytest.raises(error, match=message), masked(tiny_llama, neurons, value):
            pass
    assert hooks(tiny_llama) == 0


def test_model_without_gated_mlp(tiny_llama: LlamaForCausalLM) -> None:
    neurons = some(tiny_llama, "gate")
    tiny_llama.model.layers[0].mlp = nn.Linear(32, 32)
    with pytest.raises(ValueError, match="is not gated"), masked(tiny_llama, neurons):
        pass
