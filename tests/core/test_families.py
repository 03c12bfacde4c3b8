"""Every family in `models.FAMILIES` on small random models that have all its peculiarities.

`pytest tests/test_families.py -k lxt -s` prints each family's worst deviation from lxt.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rules_reference
import torch
from conftest import COMMON, SPECIFIC, make_tiny, spread
from lxt_reference import FAMILIES as LXT_FAMILIES
from lxt_reference import samples
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from crane_core import models
from crane_core.accumulators import ActiveCounts, Reader, one_pass
from crane_core.attribution import (
    OBJECTIVES,
    attnlrp,
    neuron_relevance,
    objective_values,
    token_relevance,
)
from crane_core.families import adapter
from crane_core.masking import bake, masked
from crane_core.neurons import NeuronSet

Batch = tuple[Tensor, Tensor]
FAMILIES = list(models.FAMILIES)
GEMMA = [family for family in FAMILIES if family.startswith("gemma")]
#: With norms on both sides of attention and MLP.
NORMED_TWICE = [family for family in GEMMA if family != "gemma"]

pytestmark = pytest.mark.filterwarnings("ignore:.*padding_side.*")


def padded(side: str) -> Batch:
    ids = samples()
    batch = pad_sequence(ids, batch_first=True, padding_value=0, padding_side=side)
    real = pad_sequence([torch.ones_like(x) for x in ids], batch_first=True, padding_side=side)
    return batch, real


def deviation(ours: Tensor, reference: Tensor) -> float:
    """Largest difference, relative to the largest score."""
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max() / reference.abs().max())


def make_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(COMMON["vocab_size"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@torch.no_grad()
def logits(model: Any, batch: Batch) -> Tensor:
    found: Tensor = model(input_ids=batch[0], attention_mask=batch[1]).logits[batch[1].bool()]
    return found


def counts_of(model: PreTrainedModel) -> Reader:
    return Reader("act_fn", lambda: ActiveCounts(models.shape(model)["intermediate"]))


def some(model: PreTrainedModel, *sites: str) -> NeuronSet:
    generator = torch.Generator().manual_seed(0)
    shape = models.shape(model)
    return NeuronSet({s: torch.rand(shape[s], generator=generator) < 0.2 for s in sites}, shape)


# --- what a family is ---------------------------------------------------------------------------


def test_every_adapter_is_tested() -> None:
    assert set(SPECIFIC) == set(models.FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter(family: str) -> None:
    """Every RMS norm that text meets is in the adapter, once, in the order in which it is run."""
    model = make_tiny(family)
    met: list[nn.Module] = []
    text = models.decoder(model)
    known = [m for m in text.modules() if type(m).__name__.endswith("RMSNorm")]
    handles = [m.register_forward_hook(lambda m, args, out: met.append(m)) for m in known]
    logits(model, padded("right"))
    for handle in handles:
        handle.remove()
    assert met == models.norms(model)
    assert len(models.stream_norms(model)) == 7
    assert models.shape(model)["intermediate"] == (3, 48)
    assert models.shape(model)["down"] == (3, 32)


@pytest.mark.parametrize("family", ["gpt2", "opt", "phi"])
def test_unknown_family(family: str, tmp_path: Path) -> None:
    size = {"gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 1}}.get(
        family, {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    )
    config = AutoConfig.for_model(family, vocab_size=16, **size)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "model")
    for use in (
        lambda: models.load(tmp_path / "model"),
        lambda: models.shape(model),
        lambda: neuron_relevance(model, torch.ones(1, 4, dtype=torch.long)),
    ):
        with pytest.raises(ValueError) as error:
            use()
        known = f"known: {', '.join(sorted(models.FAMILIES))}"
        for part in (f"{family!r}", known, f"FAMILIES[{family!r}]", "crane_core/families.py"):
            assert part in str(error.value)


# --- relevance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", LXT_FAMILIES)
def test_equals_lxt(lxt_reference: dict[str, Tensor], family: str) -> None:
    """Padded batches of ours against lxt's own patched classes, one sample at a time, float32."""
    model = make_tiny(family)
    worst = 0.0
    for side in ("left", "right"):
        ids, mask = padded(side)
        for objective in OBJECTIVES:

            def reference(key: str, objective: str = objective) -> Tensor:
                names = [f"{family}/{objective}/{i}/{key}" for i in range(len(samples()))]
                return torch.stack([lxt_reference[name] for name in names])

            found = {"intermediate": neuron_relevance(model, ids, mask, objective)}
            found |= neuron_relevance(model, ids, mask, objective, site="projections")
            sums = neuron_relevance(
                model, ids, mask, objective, site="projections", score="weight_gradient_sum"
            )
            found |= {f"wgrad_{name}": value for name, value in sums.items()}
            worst = max(worst, *(deviation(x, reference(key)) for key, x in found.items()))
            tokens = token_relevance(model, ids, mask, objective)
            for i, real in enumerate(mask.bool()):
                expected = lxt_reference[f"{family}/{objective}/{i}/tokens"]
                worst = max(worst, deviation(tokens[i, real], expected))
    print(f"\n{family}: differs from lxt by at most {worst:.1e} of the largest score", end=" ")
    assert worst < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_rules_written_out(family: str) -> None:
    """Against AttnLRP on a decoder written from scratch, which must be the same decoder first."""
    model: Any = make_tiny(family)
    alone = samples()
    with torch.no_grad():
        for ids in alone:
            written_out = rules_reference.forward(model, ids)[0]
            assert deviation(model(input_ids=ids[None]).logits[0], written_out) < 1e-5
    worst = 0.0
    for side in ("left", "right"):
        for objective in OBJECTIVES:
            expected = [rules_reference.relevance(model, ids, objective) for ids in alone]
            neurons = neuron_relevance(model, *padded(side), objective)
            tokens = token_relevance(model, *padded(side), objective)
            for i, real in enumerate(padded(side)[1].bool()):
                worst = max(worst, deviation(neurons[i], expected[i][0]))
                worst = max(worst, deviation(tokens[i, real], expected[i][1]))
    print(f"\n{family}: differs from the rules written out by at most {worst:.1e}", end=" ")
    assert worst < 1e-5


def test_the_reference_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule for soft caps it is not the same."""
    model, ids = make_tiny("gemma2"), samples()[0]
    expected, _ = rules_reference.relevance(model, ids, "next_token")
    monkeypatch.setattr(
        "crane_core.attribution._SoftCaps.__torch_function__",
        lambda self, func, types, args=(), kwargs=None: func(*args, **(kwargs or {})),
    )
    assert deviation(neuron_relevance(model, ids[None])[0], expected) > 1e-2


def test_a_norm_without_a_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.FAMILIES, "qwen3", models.Family())
    with pytest.raises(ValueError, match=r"the normalisation 'layers\.0\.self_attn\.q_norm'"):
        neuron_relevance(make_tiny("qwen3"), samples()[0][None])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_is_bit_identical(family: str, dtype: torch.dtype) -> None:
    caps = SPECIFIC[family].get("attn_logit_softcapping")
    for implementation in ["eager"] if caps else ["sdpa", "eager"]:
        model = make_tiny(family, attn_implementation=implementation).to(dtype)
        for side in ("left", "right"):
            batch = padded(side)
            outside = logits(model, batch)
            with attnlrp(model):
                embeddings = model.get_input_embeddings()(batch[0]).requires_grad_()
                inside = model(inputs_embeds=embeddings, attention_mask=batch[1]).logits
            assert inside.requires_grad
            assert torch.equal(inside[batch[1].bool()], outside)
            assert torch.equal(logits(model, batch), outside)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_trace(family: str) -> None:
    model = make_tiny(family)
    model.train()

    def state() -> list[Any]:
        modules = [{k: v for k, v in vars(m).items() if k != "config"} for m in model.modules()]
        parts = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
        kept = [(config._attn_implementation, config.to_dict()) for config in parts]
        return [modules, kept, models.fingerprint(model)]

    before = state()
    with pytest.raises(KeyError), attnlrp(model):
        assert models.decoder(model).config._attn_implementation not in ("eager", "sdpa")
        raise KeyError
    neuron_relevance(model, *padded("left"))
    assert state() == before


@pytest.mark.parametrize("family", GEMMA)
def test_lxts_own_patch_is_noticed(family: str) -> None:
    model = make_tiny(family)
    broken: Any = models.norms(model)[1]
    broken._norm = lambda x: x
    with pytest.raises(ValueError, match="is patched already"), attnlrp(model):
        pass


def test_soft_caps_inside_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_tiny("gemma2")
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flex_attention")
    with pytest.raises(ValueError, match="soft-caps scores inside its kernel"), attnlrp(model):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_close(family: str) -> None:
    model = make_tiny(family)
    exact = neuron_relevance(model, *padded("right"))
    found = neuron_relevance(model.to(torch.bfloat16), *padded("right"))
    assert found.dtype == torch.float32 and found.isfinite().all()
    together = torch.stack([found.flatten(), exact.flatten()])
    assert together.corrcoef()[0, 1] > 0.99


@pytest.mark.parametrize("family", FAMILIES)
def test_nan_is_named(family: str) -> None:
    model = make_tiny(family, tie_word_embeddings=False)  # or all logits would hold a NaN
    ids, mask = padded("right")
    ids[ids == 60] = 59
    ids[2, 3] = 60
    with torch.no_grad():
        model.get_input_embeddings().weight[60] = float("nan")
    with pytest.raises(ValueError, match="is nan in layer 0, sample 2 of the batch"):
        neuron_relevance(model, ids, mask)
    with pytest.raises(ValueError, match="in layer 0, sample 2 of the batch, is not finite"):
        one_pass(model, ids, mask, {"active": counts_of(model)})
    model = make_tiny(family)
    weight = models.mlp_sites(model)[1].down_proj.get_parameter("weight")
    with torch.no_grad():
        weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="is nan in layer 0, sample 0"):
        neuron_relevance(model, ids[:2], mask[:2])
    with pytest.raises(ValueError, match=r"in layer 2, sample 0 .* is not finite"):
        one_pass(model, ids[:2], mask[:2], {"active": counts_of(model)})


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_and_baked(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights zeroed, hooks and a baked checkpoint loaded again: one intervention."""
    model, batch = make_tiny(family), padded("right")
    tokenizer = make_tokenizer(eos_token="w2")
    neurons = some(model, "intermediate", "gate", "up", "down")
    before, weights = logits(model, batch), models.fingerprint(model)
    with masked(model, neurons):
        expected = logits(model, batch)
    assert (expected - before).abs().max() > 1e-2
    assert models.fingerprint(model) == weights
    folder = bake(model, neurons, tmp_path / "baked", tokenizer)
    baked, _ = models.load(folder)
    assert type(baked) is type(model)
    assert torch.equal(logits(baked, batch), expected)
    monkeypatch.setattr("crane_core.interventions.own_weights", lambda model, neurons: False)
    with masked(model, neurons):
        assert torch.equal(logits(model, batch), expected)
    off = neurons.mask("intermediate")
    with masked(model, NeuronSet({"intermediate": off}, models.shape(model))):
        relevance = neuron_relevance(model, *batch)
    assert relevance[:, off].count_nonzero() == 0 and relevance[:, ~off].count_nonzero() > 0


def test_soft_capped_attention_is_loaded_as_such(tmp_path: Path) -> None:
    """transformers' default, scaled dot product attention, would leave the caps out unsaid."""
    model, batch = make_tiny("gemma2"), padded("right")
    model.save_pretrained(tmp_path)
    make_tokenizer(eos_token="w2").save_pretrained(tmp_path)
    loaded, _ = models.load(tmp_path)
    assert torch.equal(logits(loaded, batch), logits(model, batch))
    default = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert (logits(default, batch) - logits(model, batch)).abs().max() > 1e-2


class Packed(nn.Module):
    """A projection that keeps its weights as quantised layers do: in no matrix."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight = nn.Parameter(plain.weight.detach().reshape(-1, 1)[::2])


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_weights(family: str, tmp_path: Path) -> None:
    model = make_tiny(family)
    neurons = some(model, "intermediate")
    site = models.mlp_sites(model)[1]
    site.mlp.down_proj = Packed(site.down_proj)
    with (
        pytest.raises(ValueError, match=r"a Packed with packed \(quantised\).*unquantised"),
        masked(model, neurons),
    ):
        pass
    with pytest.raises(ValueError, match="unquantised checkpoint"):
        bake(model, neurons, tmp_path / "baked")


# --- what else reads models ---------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_activations(family: str) -> None:
    """LAPE's counts from padded batches are those of the plain MLPs on each text alone."""
    model = make_tiny(family)
    reader = counts_of(model)
    found = reader.make()
    for side in ("left", "right"):
        found.merge(one_pass(model, *padded(side), {"active": reader})["active"])
    counts, tokens = found.over, found.tokens
    expected = torch.zeros(models.shape(model)["intermediate"], dtype=torch.long)
    for layer, site in enumerate(models.mlp_sites(model)):
        read: list[Tensor] = []
        handle = site.mlp.register_forward_pre_hook(lambda m, args, read=read: read.append(args[0]))
        with torch.no_grad():
            for ids in samples():
                model(input_ids=ids[None])
            handle.remove()
            gate = site.gate_proj(torch.cat([x[0] for x in read]))
        expected[layer] = 2 * (gate > 0).sum(0)
    assert tokens == 2 * sum(len(ids) for ids in samples())
    # A pre-activation within rounding of zero may fall on either side.
    assert (counts - expected).abs().sum() <= 2


Make = Callable[..., LlamaForCausalLM]


def test_sites(tiny_llama: LlamaForCausalLM) -> None:
    sites = models.mlp_sites(tiny_llama)
    assert [site.mlp for site in sites] == [block.mlp for block in tiny_llama.model.layers]
    assert sites[1].up_proj is tiny_llama.model.layers[1].mlp.up_proj
    assert sites[2].act_fn is tiny_llama.model.layers[2].mlp.act_fn
    assert models.shape(tiny_llama) == {
        "intermediate": (3, 48),
        "gate": (3, 48),
        "up": (3, 48),
        "down": (3, 32),
    }
    assert len(models.norms(tiny_llama)) == 7


def test_a_model_of_an_unknown_family() -> None:
    config = GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    with pytest.raises(ValueError) as error:
        models.mlp_sites(GPT2LMHeadModel(config))
    for part in ("'gpt2'", "known: gemma, gemma2", "FAMILIES['gpt2']", "crane_core/families.py"):
        assert part in str(error.value)


def test_no_gated_mlp(tiny_llama: LlamaForCausalLM) -> None:
    tiny_llama.model.layers[1].mlp = nn.Linear(32, 32)
    with pytest.raises(ValueError, match=r"layer 1 \(Linear\) is not gated: it has no gate_proj"):
        models.shape(tiny_llama)


def test_adapter_that_does_not_fit(
    tiny_llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.FAMILIES, "llama", models.Family(mlp="feed_forward"))
    with pytest.raises(ValueError, match="'llama' model has no module 'feed_forward'"):
        models.mlp_sites(tiny_llama)
    monkeypatch.setitem(models.FAMILIES, "llama", models.Family(layers="model.rotary_emb"))
    with pytest.raises(ValueError, match="no decoder layers"):
        models.mlp_sites(tiny_llama)


def test_layers_of_different_width(tiny_llama: LlamaForCausalLM, make_llama: Make) -> None:
    tiny_llama.model.layers[1].mlp = make_llama(intermediate_size=40).model.layers[1].mlp
    with pytest.raises(ValueError, match=r"differ in width at 'intermediate' \(\[40, 48\]\)"):
        models.shape(tiny_llama)


# --- families added by a user -------------------------------------------------------------------


def added(
    monkeypatch: pytest.MonkeyPatch, family: str, adapter: models.Family, **options: Any
) -> PreTrainedModel:
    """A small random model of a family that the user wrote an adapter for."""
    monkeypatch.setitem(models.FAMILIES, family, adapter)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **COMMON, **options)
    return spread(AutoModelForCausalLM.from_config(config))  # type: ignore[no-any-return]


def test_scaled_logits_are_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Granite divides its logits and multiplies its residuals; no adapter has to say so."""
    scales = {"logits_scaling": 8.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0}
    model = added(monkeypatch, "granite", models.Family(), **scales)
    assert not models.linear_head(model) and models.linear_head(make_tiny("llama"))
    ids = torch.stack([samples()[0][:6]])
    own = model(input_ids=ids).logits
    own = own[:, :-1].gather(-1, ids[:, 1:, None]).sum()
    torch.testing.assert_close(objective_values(model, ids)[0], own)
    with attnlrp(model):
        embeddings = model.get_input_embeddings()(ids).requires_grad_()
        inside = model(inputs_embeds=embeddings).logits
    assert torch.equal(inside, model(inputs_embeds=embeddings).logits)


def test_another_kind_of_norm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cohere's norms take the mean away: under the rule for RMS norms it is another model."""
    name = "input_layernorm"
    model = added(monkeypatch, "cohere", models.Family(norms=(name,), stream_norms=(name, name)))
    before = logits(model, padded("right"))
    with pytest.raises(ValueError, match="this CohereForCausalLM is another model: a logit"):
        neuron_relevance(model, *padded("right"))
    assert torch.equal(logits(model, padded("right")), before)


def test_each_model_is_tried_once(
    tiny_llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    neuron_relevance(tiny_llama, *padded("left"))
    monkeypatch.setattr("crane_core.families.few_tokens", None)
    neuron_relevance(tiny_llama, *padded("left"))


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("mixtral", {}, "is a mixture of experts"),
        ("deepseek_v3", {}, "is a mixture of experts"),
        ("qwen3_5_text", {}, "has linear attention, which AttnLRP has no rule for"),
        ("t5", {}, "is an encoder with a decoder"),
        ("mistral3", {}, "reads more than text"),
    ],
)
def test_why_a_family_is_refused(family: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"the family {family!r} {reason}; CRANE takes dense"):
        adapter(AutoConfig.for_model(family, **options))


def test_what_a_model_was_not_built_for(tiny_llama: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="windows of 65 tokens are longer than the 64 positions"):
        neuron_relevance(tiny_llama, torch.full((1, 65), 3))
    for wrong in (64, -1):
        with pytest.raises(
            ValueError, match=f"input_ids hold .*{wrong}.* vocabulary has 64 tokens"
        ):
            neuron_relevance(tiny_llama, torch.tensor([[3, wrong, 4]]))
