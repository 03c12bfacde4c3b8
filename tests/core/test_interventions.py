"""Interventions on neurons: what each kind does, where and when, and that nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import make_tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from crane_core import models
from crane_core.interventions import (
    UNTOUCHED,
    Add,
    Intervention,
    Scale,
    SetTo,
    intervened,
    zero,
)
from crane_core.masking import masked
from crane_core.selection import NeuronSet

FAMILIES = ["llama", "qwen3", "gemma2", "gemma3_text"]
IDS = torch.arange(3, 15)[None]


def some(model: Any, *pairs: tuple[int, int]) -> NeuronSet:
    return NeuronSet.from_pairs(pairs or [(0, 3), (1, 7), (2, 40)], models.shape(model))


def values(model: Any, number: float) -> dict[str, Tensor]:
    return {"intermediate": torch.full(models.shape(model)["intermediate"], number)}


@torch.no_grad()
def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    found: Tensor = model(input_ids=ids, use_cache=False).logits
    return found


@torch.no_grad()
def read(model: Any, intervention: Intervention, layer: int, at: str) -> Tensor:
    """What `down_proj` reads, or `act_fn` puts out, under an intervention."""
    seen: list[Tensor] = []
    mlp = models.mlp_sites(model)[layer]
    with intervened(model, intervention):
        if at == "act_fn":
            handle = mlp.act_fn.register_forward_hook(lambda m, a, output: seen.append(output))
        else:
            handle = mlp.down_proj.register_forward_pre_hook(lambda m, a: seen.append(a[0]))
        try:
            logits(model)
        finally:
            handle.remove()
    return seen[0]


@pytest.mark.parametrize("at", ["unit", "act_fn"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_kind_does_what_it_says_and_nothing_else(family: str, at: str) -> None:
    model = make_tiny(family)
    neurons, neuron = some(model, (0, 3)), 3
    before = read(model, UNTOUCHED, 0, at)
    rest = torch.arange(before.shape[-1]) != neuron
    for step, expected in (
        (SetTo(neurons, 0.5, at=at), torch.full_like(before[..., neuron], 0.5)),
        (SetTo(neurons, values(model, -0.25), at=at), torch.full_like(before[..., neuron], -0.25)),
        (Add(neurons, 2.0, 0.5, at=at), before[..., neuron] + 1),
        (Add(neurons, values(model, 2.0), -1.5, at=at), before[..., neuron] - 3),
        (Scale(neurons, 3.0, at=at), before[..., neuron] * 3),
    ):
        after = read(model, Intervention(step), 0, at)
        torch.testing.assert_close(after[..., neuron], expected, rtol=1e-6, atol=0)
        assert torch.equal(after[..., rest], before[..., rest])


def test_nothing_stays() -> None:
    model = make_tiny("llama")
    before, weights = logits(model), models.fingerprint(model)
    everything = (
        zero(some(model, (0, 1)))
        + Intervention(Add(some(model, (1, 2)), values(model, 1.0), 3.0))
        + Intervention(Scale(some(model, (2, 3)), 2.0, at="act_fn"))
    )
    with pytest.raises(KeyboardInterrupt), intervened(model, everything):
        assert not torch.equal(logits(model), before)
        raise KeyboardInterrupt
    assert torch.equal(logits(model), before)
    assert models.fingerprint(model) == weights
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_one_set_is_switched_off_while_another_is_raised() -> None:
    model = make_tiny("llama")
    off, up = some(model, (0, 1)), some(model, (0, 2))
    both = zero(off) + Intervention(Add(up, 1.0, 4.0))
    assert len(both) == 2
    with intervened(model, both):
        together = logits(model)
    with masked(model, off), intervened(model, Intervention(Add(up, 4.0))):
        nested = logits(model)
    torch.testing.assert_close(together, nested)


def test_steps_at_one_place_follow_each_other() -> None:
    model, neurons = make_tiny("llama"), some(make_tiny("llama"), (0, 3))
    first_set = Intervention(SetTo(neurons, 1.0), Scale(neurons, 3.0))
    assert read(model, first_set, 0, "unit")[..., 3].unique().tolist() == [3.0]
    first_scaled = Intervention(Scale(neurons, 3.0), SetTo(neurons, 1.0))
    assert read(model, first_scaled, 0, "unit")[..., 3].unique().tolist() == [1.0]


def test_zero_at_act_fn_is_zero_of_the_unit() -> None:
    model = make_tiny("llama")
    with intervened(model, Intervention(SetTo(some(model), 0.0, at="act_fn"))):
        at_gate = logits(model)
    with intervened(model, zero(some(model))):
        torch.testing.assert_close(at_gate, logits(model))


def test_through_weights_and_through_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny("llama")
    with intervened(model, zero(some(model))):
        in_weights = logits(model)
        assert not any(m._forward_pre_hooks for m in model.modules())
    monkeypatch.setattr("crane_core.interventions.own_weights", lambda model, neurons: False)
    with intervened(model, zero(some(model))):
        assert torch.equal(logits(model), in_weights)
        assert any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_positions_only(family: str) -> None:
    model = make_tiny(family)
    everywhere = Intervention(Add(some(model), 3.0))
    generated = Intervention(Add(some(model), 3.0, positions="generated"))
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "output_logits": True}
    options |= {"return_dict_in_generate": True, "pad_token_id": 0, "eos_token_id": None}

    def steps(intervention: Intervention) -> list[Tensor]:
        with intervened(model, intervention):
            mask = torch.ones_like(IDS)
            return list(model.generate(IDS, attention_mask=mask, **options).logits)

    plain, late, always = steps(UNTOUCHED), steps(generated), steps(everywhere)
    # The first new token is predicted from the prompt alone; those after it from new tokens too.
    assert torch.equal(late[0], plain[0])
    assert not torch.allclose(late[1], plain[1])
    assert not torch.allclose(always[0], plain[0])
    with intervened(model, generated), pytest.raises(ValueError, match="generation with a cache"):
        logits(model)


def test_digests() -> None:
    model = make_tiny("llama")
    neurons, other = some(model), some(model, (0, 0))
    assert UNTOUCHED.digest() == "" and len(UNTOUCHED) == 0 and UNTOUCHED.neurons is None
    assert zero(neurons).digest() == neurons.digest()
    means = values(model, 0.5)
    changed = {"intermediate": means["intermediate"].clone()}
    changed["intermediate"][0, 3] = 0.75
    elsewhere = {"intermediate": means["intermediate"].clone()}
    elsewhere["intermediate"][0, 4] = 0.75
    different = [
        UNTOUCHED,
        zero(neurons),
        zero(other),
        zero(neurons) + zero(other),
        Intervention(SetTo(neurons, 0.0, at="act_fn")),
        Intervention(SetTo(neurons, 0.0, positions="generated")),
        Intervention(SetTo(neurons, 0.5)),
        Intervention(SetTo(neurons, means)),
        Intervention(SetTo(neurons, changed)),
        Intervention(Scale(neurons, 0.5)),
        Intervention(Add(neurons, 0.5)),
        Intervention(Add(neurons, 0.5, 2.0)),
    ]
    assert len({x.digest() for x in different}) == len(different)
    # What would be written to neurons outside of the set makes no difference.
    assert Intervention(SetTo(neurons, elsewhere)).digest() == different[7].digest()


def test_masking_only() -> None:
    model = make_tiny("llama")
    assert UNTOUCHED.as_masking is None
    assert zero(some(model)).as_masking == some(model)
    with pytest.raises(
        ValueError, match="only setting to zero can be done here; got scale at unit"
    ):
        assert Intervention(Scale(some(model), 2.0)).as_masking


@given(st.floats(-4, 4, allow_nan=False, width=32), st.floats(-4, 4, allow_nan=False, width=32))
def test_adding_twice_is_adding_the_sum(a: float, b: float) -> None:
    model = make_tiny("llama")
    neurons = some(model)
    twice = read(model, Intervention(Add(neurons, a), Add(neurons, b)), 0, "unit")
    once = read(model, Intervention(Add(neurons, a + b)), 0, "unit")
    torch.testing.assert_close(twice, once, rtol=1e-5, atol=1e-5)


def test_bad_steps_are_refused() -> None:
    model = make_tiny("llama")
    neurons, shape = some(model), models.shape(model)
    down = NeuronSet.from_pairs([(0, 1)], shape, "down")
    for make, message in (
        (lambda: SetTo(neurons, 0.0, at="mlp"), "at is 'mlp': expected one of"),
        (lambda: SetTo(neurons, 0.0, positions="last"), "positions is 'last'"),
        (lambda: SetTo(down, 0.0, at="act_fn"), "only intermediate ones are there"),
        (lambda: SetTo(neurons, float("nan")), "a finite number"),
        (lambda: SetTo(neurons, {"gate": torch.zeros(3, 48)}), "no value is given there"),
        (lambda: Scale(neurons, {"intermediate": torch.zeros(2, 48)}), "have shape"),
        (lambda: Add(neurons, 1.0, float("inf")), "strength is inf"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    for wrong in ("0", None, True):
        with pytest.raises(TypeError, match="number"):
            SetTo(neurons, wrong)  # type: ignore[arg-type]
    other = NeuronSet.from_pairs([(0, 1)], (2, 8))
    with pytest.raises(ValueError, match="different models"), intervened(model, zero(other)):
        pass
