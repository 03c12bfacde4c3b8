import copy
import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import make_tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from lxt_reference import CASES, samples
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaForCausalLM
from transformers.models.llama import modeling_llama

from crane_core import attribution, models
from crane_core.attribution import (
    OBJECTIVES,
    attnlrp,
    check_finite,
    neuron_relevance,
    objective_values,
    token_relevance,
)

Make = Callable[..., LlamaForCausalLM]
Batch = tuple[Tensor, Tensor]


def assert_close(ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> None:
    """Agreement relative to the largest score (float32 sums of many terms of either sign)."""
    assert ours.shape == reference.shape
    error = (ours - reference).abs().max() / reference.abs().max()
    assert error <= tolerance, f"differs by {error:.2e} of the largest score"


def padded(ids: list[Tensor], side: str = "right") -> Batch:
    batch = pad_sequence(ids, batch_first=True, padding_value=0, padding_side=side)
    mask = [torch.ones_like(sample) for sample in ids]
    return batch, pad_sequence(mask, batch_first=True, padding_side=side)


# --- against lxt itself -------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_lxt(
    lxt_reference: dict[str, Tensor], make_llama: Make, case: str, objective: str, side: str
) -> None:
    model = make_llama(**CASES[case])
    ids, mask = padded(samples(), side)

    def reference(key: str) -> Tensor:
        found = [lxt_reference[f"{case}/{objective}/{i}/{key}"] for i in range(len(ids))]
        return torch.stack(found)

    assert_close(neuron_relevance(model, ids, mask, objective), reference("intermediate"))
    for name, ours in neuron_relevance(model, ids, mask, objective, site="projections").items():
        assert_close(ours, reference(name))
    sums = neuron_relevance(
        model, ids, mask, objective, site="projections", score="weight_gradient_sum"
    )
    for name, ours in sums.items():
        assert_close(ours, reference(f"wgrad_{name}"))
    tokens = token_relevance(model, ids, mask, objective)
    assert tokens[mask == 0].count_nonzero() == 0
    for i, real in enumerate(mask.bool()):
        assert_close(tokens[i, real], lxt_reference[f"{case}/{objective}/{i}/tokens"])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_forward_is_bit_identical(make_llama: Make, implementation: str, side: str) -> None:
    model = make_llama(attn_implementation=implementation)
    ids, mask = padded(samples(), "right" if side == "none" else side)
    inputs = {"input_ids": ids} if side == "none" else {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        outside = model(**inputs).logits
    with attnlrp(model):
        embeddings = model.get_input_embeddings()(inputs.pop("input_ids")).requires_grad_()
        inside = model(inputs_embeds=embeddings, **inputs).logits
    assert inside.requires_grad
    assert torch.equal(inside, outside)


# --- gradient x activation ----------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_plain_gradient_against_finite_differences(
    make_llama: Make, tiny_batch: Batch, objective: str
) -> None:
    """Summed over tokens, activation x gradient is the derivative for the neuron's gain: for a
    factor on the column of down_proj that reads it, or on the row of the projection that makes it.
    """
    model = make_llama(mlp_bias=True).double()
    ours = neuron_relevance(model, *tiny_batch, objective, rules="gradient")
    rows = neuron_relevance(model, *tiny_batch, objective, site="projections", rules="gradient")
    step = 1e-2

    def difference(weights: list[Tensor]) -> Tensor:
        values = []
        for factor in (1 + step, 1 - step):
            kept = [w.clone() for w in weights]
            with torch.no_grad():
                for w in weights:
                    w.mul_(factor)
                values.append(objective_values(model, *tiny_batch, objective).double())
                for w, old in zip(weights, kept, strict=True):
                    w.copy_(old)
        return (values[0] - values[1]) / (2 * step)

    for layer, neuron in [(0, 0), (0, 17), (1, 30), (2, 5)]:
        mlp = model.model.layers[layer].mlp
        column = difference([mlp.down_proj.weight.data[:, neuron]])
        assert torch.allclose(ours[:, layer, neuron].double(), column, atol=2e-3)
        for name in ("gate", "up", "down"):
            projection = getattr(mlp, f"{name}_proj")
            row = difference(
                [projection.weight.data[neuron % 32], projection.bias.data[neuron % 32]]
            )
            assert torch.allclose(rows[name][:, layer, neuron % 32].double(), row, atol=2e-3)


def test_rules_change_the_scores(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    lrp = neuron_relevance(tiny_llama, *tiny_batch)
    gradient = neuron_relevance(tiny_llama, *tiny_batch, rules="gradient")
    assert (lrp - gradient).abs().max() > 0.1 * gradient.abs().max()


# --- conservation, rule by rule -----------------------------------------------------------------


def relevance_in_and_out(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    (gradient,) = torch.autograd.grad(y, x, seed := torch.randn_like(y))
    return (x * gradient).sum((1, 2)), (y * seed).sum((1, 2)).detach()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 10.0]))
@pytest.mark.parametrize("rule", ["linear", "norm", "gated MLP", "residual"])
def test_conservation(rule: str, seed: int, scale: float) -> None:
    """Eq. 1 for each rule by itself: what goes into a module is what comes out (no biases)."""
    model = make_tiny_llama(seed % 5)
    block = model.model.layers[1]
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": block.mlp.up_proj,
        "norm": block.input_layernorm,
        "gated MLP": block.mlp,
        "residual": lambda h: h + block.mlp(block.post_attention_layernorm(h)),
    }
    torch.manual_seed(seed)
    x = scale * torch.randn(3, 5, 32)
    with attnlrp(model):
        found, expected = relevance_in_and_out(functions[rule], x)
    magnitude = (functions[rule](x).abs().sum((1, 2))).detach()
    assert ((found - expected).abs() / magnitude).max() < 1e-5


def test_plain_gradient_is_not_conserved(tiny_llama: LlamaForCausalLM) -> None:
    """The check above can fail: it does without the rules."""
    mlp, x = tiny_llama.model.layers[0].mlp, torch.randn(3, 5, 32)
    found, expected = relevance_in_and_out(mlp, x)
    assert (found - expected).abs().max() > 1e-2


def test_sites_conserve(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    """In a model without biases relevance is passed on from `down` to `intermediate` to `gate` and
    `up`, which get half each: under AttnLRP the sites differ in scale only."""
    whole = neuron_relevance(tiny_llama, *tiny_batch)
    parts = neuron_relevance(tiny_llama, *tiny_batch, site="projections")
    assert_close(parts["gate"], whole / 2)
    assert_close(parts["up"], whole / 2)
    assert_close(parts["down"].sum(-1), whole.sum(-1))


# --- batches, padding, reductions ---------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("site", attribution.SITES)
def test_padding_and_neighbours_change_nothing(
    tiny_llama: LlamaForCausalLM, objective: str, site: str
) -> None:
    def scores(ids: Tensor, mask: Tensor | None) -> Tensor:
        found = neuron_relevance(tiny_llama, ids, mask, objective, site=site)
        return found if isinstance(found, Tensor) else torch.cat(list(found.values()), -1)

    alone = torch.cat([scores(ids[None], None) for ids in samples()])
    for side in ("left", "right"):
        assert_close(scores(*padded(samples(), side)), alone)
        assert_close(scores(*padded(samples()[::-1], side)).flip(0), alone)


def test_what_stands_at_padding_does_not_matter(tiny_llama: LlamaForCausalLM) -> None:
    ids, mask = padded(samples())
    other = torch.where(mask.bool(), ids, 63)
    assert not torch.equal(ids, other)
    assert_close(neuron_relevance(tiny_llama, other, mask), neuron_relevance(tiny_llama, ids, mask))


def test_output_is_float32_for_other_dtypes(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch
) -> None:
    exact = neuron_relevance(tiny_llama, *tiny_batch)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.2)):
        found = neuron_relevance(tiny_llama.to(dtype), *tiny_batch)
        assert found.dtype == torch.float32
        assert found.shape == (4, 3, 48)
        assert_close(found, exact, tolerance)


def test_mean_over_real_tokens(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    total = neuron_relevance(tiny_llama, *tiny_batch)
    mean = neuron_relevance(tiny_llama, *tiny_batch, reduction="mean")
    assert_close(mean * torch.tensor([12, 7, 10, 3])[:, None, None], total)


@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_that_open_a_sample_are_context_alone(
    tiny_llama: LlamaForCausalLM, side: str
) -> None:
    """All relevance is that of the opening and that of the rest."""
    ids, mask = padded([torch.arange(1, 9), torch.arange(5, 11)], side)
    of = partial(neuron_relevance, tiny_llama, ids, mask)
    rest = of(opening=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(attribution, "scored_tokens", lambda mask, _: mask * (mask.cumsum(1) == 1))
        opening = of()
    assert opening.abs().max() > 0
    assert_close(rest + opening, of())
    assert_close(of(opening=1, reduction="mean"), rest / (mask.sum(1) - 1)[:, None, None])


@pytest.mark.parametrize("tokens", [3, 12])
@pytest.mark.parametrize("opening", [0, 1])
def test_a_batch_that_is_scored_in_pieces(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, tokens: int, opening: int
) -> None:
    """Where all samples are scored from one column on (3 tokens), and where they are not."""
    ids, mask = (part[:, :tokens] for part in tiny_batch)
    times = 1 + 2**18 // (tokens * 48 * len(ids))
    expected = neuron_relevance(tiny_llama, ids, mask, opening=opening)
    many = neuron_relevance(
        tiny_llama, ids.repeat(times, 1), mask.repeat(times, 1), opening=opening
    )
    assert_close(many, expected.repeat(times, 1, 1))


@pytest.mark.parametrize("opening", [-1, 8])
def test_openings_that_leave_nothing(tiny_llama: LlamaForCausalLM, opening: int) -> None:
    with pytest.raises(ValueError, match=f"opening is {opening}"):
        neuron_relevance(tiny_llama, torch.arange(1, 9)[None], opening=opening)


def test_masked_neuron_has_no_relevance(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    with torch.no_grad():
        tiny_llama.model.layers[1].mlp.down_proj.weight[:, 7] = 0
    relevance = neuron_relevance(tiny_llama, *tiny_batch)
    assert relevance[:, 1, 7].count_nonzero() == 0
    assert relevance[:, 1, 8].count_nonzero() == 4


def test_works_where_gradients_are_off(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    expected = neuron_relevance(tiny_llama, *tiny_batch)
    with torch.no_grad():
        assert torch.equal(neuron_relevance(tiny_llama, *tiny_batch), expected)
    with torch.inference_mode():
        assert torch.equal(neuron_relevance(tiny_llama, *tiny_batch), expected)


# --- objectives ---------------------------------------------------------------------------------


def test_objective_values(tiny_llama: LlamaForCausalLM) -> None:
    ids, mask = padded(samples(), "left")
    expected: dict[str, list[Tensor]] = {name: [] for name in OBJECTIVES}
    targeted = []
    for sample in samples():
        with torch.no_grad():
            logits = tiny_llama(sample[None]).logits[0]
        gold = sample[1:, None]
        expected["next_token"].append(logits[:-1].gather(1, gold).sum())
        expected["next_token_logprob"].append(logits[:-1].log_softmax(-1).gather(1, gold).sum())
        expected["last_max"].append(logits[-1].max())
        targeted.append(logits[-2, sample[-1]])
    for name in OBJECTIVES:
        assert_close(objective_values(tiny_llama, ids, mask, name), torch.stack(expected[name]))
    found = objective_values(tiny_llama, ids, mask, target=-1)
    assert_close(found, torch.stack(targeted))


def test_head_that_is_not_linear(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The general way, through all logits, gives what the short way gives."""
    short = {name: neuron_relevance(tiny_llama, *tiny_batch, name) for name in OBJECTIVES}
    monkeypatch.setattr("crane_core.families.linear_head", lambda model: False)
    for name, expected in short.items():
        assert_close(neuron_relevance(tiny_llama, *tiny_batch, name), expected)


def test_next_token_computes_no_other_logits(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch
) -> None:
    neuron_relevance(tiny_llama, *tiny_batch)  # a new model is tried first
    tiny_llama.lm_head.register_forward_hook(lambda *_: pytest.fail("all logits were computed"))
    neuron_relevance(tiny_llama, *tiny_batch)


def test_targets_add_up(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    ids = tiny_batch[0][:1]
    parts = [token_relevance(tiny_llama, ids, target=t) for t in range(1, 12)]
    assert_close(torch.stack(parts).sum(0), token_relevance(tiny_llama, ids))
    assert parts[3][0, 4:].count_nonzero() == 0  # the explained token and all after it


# --- no trace -----------------------------------------------------------------------------------


def state(model: LlamaForCausalLM) -> dict[str, Any]:
    return {
        "dicts": {name: dict(vars(m)) for name, m in model.named_modules()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "config": copy.deepcopy(model.config.to_dict()),
        "config attributes": copy.deepcopy(vars(model.config)),
        "attention": model.config._attn_implementation,
        "gradients": [(p.requires_grad, p.grad) for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "classes": [type(m).forward for m in model.modules()],
        "module": dict(vars(modeling_llama)),
        "weights": models.fingerprint(model),
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("where", ["context", "neurons", "tokens"])
def test_no_trace(
    tiny_llama: LlamaForCausalLM,
    tiny_batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
    where: str,
) -> None:
    tiny_llama.train()
    tiny_llama.model.layers[1].eval()
    tiny_llama.model.layers[2].mlp.up_proj.weight.requires_grad_(False)
    before = state(tiny_llama)

    def objective(predictions: object, target: object) -> Tensor:
        assert tiny_llama.config._attn_implementation != "sdpa"
        raise KeyError("a failing objective")

    if fails:
        monkeypatch.setitem(OBJECTIVES, "next_token", objective)

    def use() -> None:
        if where == "context":
            with attnlrp(tiny_llama), attnlrp(tiny_llama):
                assert not any(p.requires_grad for p in tiny_llama.parameters())
                assert not any(m.training for m in tiny_llama.modules())
                if fails:
                    raise KeyError("a failing block")
        elif where == "neurons":
            neuron_relevance(tiny_llama, *tiny_batch)
        else:
            token_relevance(tiny_llama, *tiny_batch)

    if fails:
        with pytest.raises(KeyError):
            use()
    else:
        use()
    after = state(tiny_llama)
    assert after == before


def test_no_parameter_gradients(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = OBJECTIVES["next_token"]

    def objective(predictions: Any, target: int | None) -> Tensor:
        assert not any(p.requires_grad for p in tiny_llama.parameters())
        return original(predictions, target)

    monkeypatch.setitem(OBJECTIVES, "next_token", objective)
    neuron_relevance(tiny_llama, *tiny_batch)
    neuron_relevance(tiny_llama, *tiny_batch, rules="gradient")
    assert all(p.grad is None and p.requires_grad for p in tiny_llama.parameters())


def test_backward_ends_at_the_first_neurons(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch
) -> None:
    neuron_relevance(tiny_llama, *tiny_batch)  # a new model is tried first
    reached: list[bool] = []
    block = tiny_llama.model.layers[0]
    for module in (block.self_attn, block.post_attention_layernorm, block.mlp.gate_proj):
        module.register_forward_hook(
            lambda m, args, out: reached.append(
                (out[0] if isinstance(out, tuple) else out).requires_grad
            )
        )
    neuron_relevance(tiny_llama, *tiny_batch)
    assert reached == [False, False, False]


@pytest.mark.parametrize("site", attribution.SITES)
def test_memory_is_free_at_once(tiny_llama: LlamaForCausalLM, tiny_batch: Batch, site: str) -> None:
    """No activation waits in a reference cycle for Python's collector, which counts no bytes."""
    gc.collect()
    gc.disable()
    try:
        neuron_relevance(tiny_llama, *tiny_batch, site=site)
        token_relevance(tiny_llama, *tiny_batch)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        waiting = [item.shape for item in gc.garbage if isinstance(item, Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert waiting == []


def test_context_is_this_models_only(make_llama: Make, tiny_batch: Batch) -> None:
    model, other = make_llama(), make_llama()
    expected = neuron_relevance(other, *tiny_batch, rules="gradient")
    with attnlrp(model):
        assert torch.equal(neuron_relevance(other, *tiny_batch, rules="gradient"), expected)
        inside = neuron_relevance(model, *tiny_batch)
        assert model.config._attn_implementation != other.config._attn_implementation
    assert torch.equal(inside, neuron_relevance(model, *tiny_batch))


def test_import_leaves_lxt_usable() -> None:
    """The stand-in for lxt's registry is gone, and lxt's own rules are the ones in use."""
    assert "lxt.efficient.models" not in sys.modules
    assert attribution.lxt is sys.modules["lxt.efficient.patches"]


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("objective", "'next_token', 'next_token_logprob', 'last_max'"),
        ("site", "'intermediate', 'projections'"),
        ("rules", "'attnlrp', 'gradient'"),
        ("score", "'activation_x_gradient', 'weight_gradient_sum'"),
        ("reduction", "'sum', 'mean'"),
    ],
)
def test_unknown_name(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, kind: str, known: str
) -> None:
    options: dict[str, Any] = {kind: "nonsense"}
    with pytest.raises(ValueError, match=f"unknown {kind} 'nonsense'; known: {known}"):
        neuron_relevance(tiny_llama, *tiny_batch, **options)


def test_bad_batches(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    ids, mask = tiny_batch
    with pytest.raises(ValueError, match=r"must both be \(samples, tokens\); got \(12,\)"):
        neuron_relevance(tiny_llama, ids[0])
    with pytest.raises(ValueError, match=r"\(4, 12\) and \(4, 5\)"):
        neuron_relevance(tiny_llama, ids, mask[:, :5])
    short = mask.clone()
    short[2, 1:] = 0
    with pytest.raises(ValueError, match=r"2 real token\(s\) in each; samples with fewer: \[2\]"):
        neuron_relevance(tiny_llama, ids, short)
    assert neuron_relevance(tiny_llama, ids, short, "last_max").shape == (4, 3, 48)
    with pytest.raises(ValueError, match="at least one sample"):
        neuron_relevance(tiny_llama, ids[:0])
    for target in (0, 5):  # sample 3 has three tokens
        with pytest.raises(ValueError, match=f"column {target} cannot be explained"):
            token_relevance(tiny_llama, ids, mask, target=target)
    with pytest.raises(ValueError, match="target 12 is outside the 12 columns"):
        token_relevance(tiny_llama, ids, mask, target=12)
    with pytest.raises(ValueError, match="takes no target"):
        token_relevance(tiny_llama, ids, mask, "last_max", target=2)
    with pytest.raises(ValueError, match="use site='projections'"):
        neuron_relevance(tiny_llama, ids, mask, score="weight_gradient_sum")


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_check_finite(value: float, shown: str) -> None:
    relevance = torch.zeros(5, 4, 3)
    check_finite(relevance)
    relevance[2, 3, 1] = value
    with pytest.raises(ValueError, match=rf"site 'up' is {shown} in layer 3, sample 2 of"):
        check_finite(relevance, "up")


@pytest.mark.parametrize("site", attribution.SITES)
def test_relevance_that_is_not_finite(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, site: str
) -> None:
    """An embedding that overflows in one sample's text names that sample."""
    ids, mask = tiny_batch
    ids[ids == 60] = 59
    ids[2, 3] = 60
    with torch.no_grad():
        tiny_llama.get_input_embeddings().weight[60] = float("nan")
    with pytest.raises(ValueError, match="is nan in layer 0, sample 2 of the batch"):
        neuron_relevance(tiny_llama, ids, mask, site=site)


def test_gradient_rules_inside_attnlrp(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    with attnlrp(tiny_llama), pytest.raises(ValueError, match="leave it first"):
        neuron_relevance(tiny_llama, *tiny_batch, rules="gradient")


def test_model_patched_already(tiny_llama: LlamaForCausalLM) -> None:
    before = state(tiny_llama)
    mlp = tiny_llama.model.layers[1].mlp
    mlp.forward = lambda x: x
    with (
        pytest.raises(ValueError, match="LlamaMLP is patched already"),
        attnlrp(tiny_llama),
    ):
        pass
    del mlp.forward
    assert state(tiny_llama) == before


def test_model_without_gated_mlp(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    tiny_llama.model.layers[2].mlp = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 32))
    with pytest.raises(ValueError, match=r"layer 2 \(Sequential\) is not gated"):
        neuron_relevance(tiny_llama, *tiny_batch)


@pytest.mark.parametrize("site", ["intermediate", "projections"])
def test_embeddings_that_require_gradients_change_nothing(
    tiny_llama: LlamaForCausalLM, tiny_batch: tuple[Tensor, Tensor], site: str
) -> None:
    expected = neuron_relevance(tiny_llama, *tiny_batch, site=site)
    tiny_llama.enable_input_require_grads()  # as transformers does for gradient checkpointing
    found = neuron_relevance(tiny_llama, *tiny_batch, site=site)
    for own, other in zip(by_site(expected), by_site(found), strict=True):
        assert torch.equal(own, other)


def by_site(relevance: Tensor | dict[str, Tensor]) -> list[Tensor]:
    return [relevance] if isinstance(relevance, Tensor) else list(relevance.values())
