"""Every family in `families.FAMILIES` under what the lab measures and generates with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import COMMON, make_tiny
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lxt_reference import samples
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from crane_core import models
from crane_core.interventions import zero
from crane_core.masking import masked
from crane_core.neurons import NeuronSet
from crane_lab.engines.generation import Decoding, HuggingFaceEngine
from crane_lab.engines.perplexity import perplexity
from crane_lab.engines.shared_context import SharedContextLM
from crane_lab.study.conservation import conservation
from crane_lab.study.necessity import single_effects

Batch = tuple[Tensor, Tensor]


FAMILIES = list(models.FAMILIES)


pytestmark = pytest.mark.filterwarnings("ignore:.*padding_side.*")


def padded(side: str) -> Batch:
    ids = samples()
    batch = pad_sequence(ids, batch_first=True, padding_value=0, padding_side=side)
    real = pad_sequence([torch.ones_like(x) for x in ids], batch_first=True, padding_side=side)
    return batch, real


def make_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    names = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, COMMON["vocab_size"]))]
    words = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def some(model: PreTrainedModel, *sites: str) -> NeuronSet:
    generator = torch.Generator().manual_seed(0)
    shape = models.shape(model)
    return NeuronSet({s: torch.rand(shape[s], generator=generator) < 0.2 for s in sites}, shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_conservation(family: str) -> None:
    """Eq. 1, rule by rule, on a model whose biases are zero: softmax alone loses relevance."""
    model = make_tiny(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    ids = padded("right")[0][:, :3]
    worst = conservation(model, ids).groupby("step")["error"].max()
    lossless = ["linear layer", "RMS norm", "gated MLP", "attention: values"]
    lossless.append("residual stream, across MLP")
    if family == "gemma2":
        lossless.append("soft cap of the logits")
        plain = conservation(model, ids, rules="gradient").groupby("step")["error"].max()
        assert plain["soft cap of the logits"] > 1e-2
    assert (worst[lossless] < 1e-5).all()
    assert worst["residual stream, across attention"] > 1e-3
    # A bias keeps relevance for itself, which the same check finds.
    if family in ("qwen2", "gemma2"):
        biased = conservation(make_tiny(family), ids).groupby("step")["error"].max()
        assert biased["linear layer"] > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_single_ablations(family: str) -> None:
    """Only what follows the neuron is run again, a norm after the MLP included."""
    model = make_tiny(family).double()
    ids = padded("right")[0].clamp(min=3)
    if models.caps_logits(model):
        with pytest.raises(ValueError, match="'gemma2' model's are not"):
            single_effects(model, ids, 0, [0])
        return
    for layer in range(3):
        untouched, found = single_effects(model, ids, layer, [3, 40], [0.0], batch_size=2)
        for neuron, losses in zip((3, 40), found[0], strict=True):
            alone = NeuronSet.from_pairs([(layer, neuron)], models.shape(model))
            with masked(model, alone), torch.no_grad():
                scores = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
            expected = F.cross_entropy(scores, ids[:, 1:], reduction="none").mean(1)
            torch.testing.assert_close(losses, expected, rtol=1e-10, atol=0)
            assert (losses - untouched).abs().max() > 1e-5


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry per call of the trees' scoring."""
    calls: list[int] = []
    score = SharedContextLM._score

    def counting(self: Any, packed: Any) -> Any:
        calls.append(len(packed.pairs))
        return score(self, packed)

    monkeypatch.setattr(SharedContextLM, "_score", counting)
    yield calls


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("window", [5, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_options_score_as_under_hflm(
    family: str, window: int, bos: bool, counted: list[int]
) -> None:
    """In trees where windows reach over the texts and logits are a product, else as HFLM does."""
    slides = {} if family == "llama" else {"sliding_window": window}
    model = make_tiny(family, **slides)
    opening = {"bos_token": "<s>"} if bos else {}
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="<pad>", **opening)
    contexts = ["w9 w10 w11 w12 w13", "w9 w10 w11 w12 w13 w14 w15 w16", "w20 w21", ""]
    pairs = [(c, f" w{i} w{i + 7}") for c in contexts for i in (5, 6, 30, 40)]
    requests = [Instance("loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    ours = SharedContextLM(model, tokenizer)
    got = ours.loglikelihood(requests, disable_tqdm=True)
    torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    trees = family == "llama" or (window == 40 and family != "gemma2")
    assert len(counted) == trees


def test_a_text_without_context_needs_something_before_it() -> None:
    with pytest.raises(ValueError, match="neither a beginning- nor an end-of-sequence token"):
        SharedContextLM(make_tiny("qwen2"), make_tokenizer(pad_token="w0"))


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity(family: str) -> None:
    model, ids = make_tiny(family), padded("right")[0].clamp(min=3)
    with torch.no_grad():
        scores = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
    expected = F.cross_entropy(scores, ids[:, 1:], reduction="none").mean(1)
    torch.testing.assert_close(perplexity(model, ids).losses, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers(family: str) -> None:
    """Greedy answers in padded batches, with caches and windows, are those of whole passes."""
    model: Any = make_tiny(family)
    tokenizer = make_tokenizer(eos_token="</s>", pad_token="<pad>")
    decoding = Decoding(max_new_tokens=6, repetition_penalty=1.0)
    prompts = [ids.tolist() for ids in samples()]
    engine = HuggingFaceEngine(model, tokenizer, decoding, progress=False)
    neurons = some(model, "intermediate")
    found = engine.generate(prompts, zero(neurons))
    for prompt, answer in zip(prompts, found, strict=True):
        ids = list(prompt)
        with masked(model, neurons), torch.no_grad():
            while len(ids) < len(prompt) + 6 and (len(ids) == len(prompt) or ids[-1] != 2):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert list(answer.tokens) == ids[len(prompt) :]
