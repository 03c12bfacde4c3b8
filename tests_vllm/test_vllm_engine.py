"""vLLM itself, run by `make test-vllm` in the environment that this makes. One start for all.

Expected is what the other engine answers, which tests/lab/test_generation.py compares with plain
`generate` of transformers; tests/lab/test_vllm_worker.py has what needs no vLLM.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import DECODING, INTERVENTIONS, MASKS, TESTBED, few, numbers, questions, some, start

from crane_core import models
from crane_core.interventions import Add, Intervention, Scale, zero
from crane_core.masking import bake
from crane_core.neurons import NeuronSet
from crane_lab.engines.generation import Answer, Decoding, HuggingFaceEngine, prompts
from crane_lab.engines.vllm_engine import VLLMEngine

# vLLM's worker has the other core.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return models.load(TESTBED / "base")


@pytest.fixture(scope="module")
def reference(loaded: tuple[Any, Any]) -> HuggingFaceEngine:
    return HuggingFaceEngine(*loaded, DECODING, progress=False)


@pytest.fixture(scope="module")
def asked(loaded: tuple[Any, Any]) -> list[list[int]]:
    return prompts(loaded[1], questions(20), chat=False)


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    with start(TESTBED / "base") as started:
        yield started


@pytest.fixture(scope="module")
def original(engine: VLLMEngine, asked: list[list[int]]) -> list[Answer]:
    return engine.generate(asked)


def test_unmasked_answers_equal_those_of_hugging_face(
    original: list[Answer], reference: HuggingFaceEngine, asked: list[list[int]]
) -> None:
    assert len(asked) == 60
    assert original == reference.generate(asked)
    assert {answer.finish for answer in original} >= {"stop"}


@pytest.mark.parametrize("name", MASKS)
def test_masked_answers_equal_those_of_hugging_face(
    name: str,
    engine: VLLMEngine,
    reference: HuggingFaceEngine,
    original: list[Answer],
    asked: list[list[int]],
) -> None:
    assert engine.shape == models.shape(reference.model)
    neurons = some(engine.shape, MASKS[name])
    found = engine.generate(asked, zero(neurons))
    assert found == reference.generate(asked, zero(neurons))
    assert found != original
    assert engine.generate(asked) == original


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_answers_under_interventions_equal_those_of_hugging_face(
    name: str,
    engine: VLLMEngine,
    reference: HuggingFaceEngine,
    original: list[Answer],
    asked: list[list[int]],
) -> None:
    intervention = INTERVENTIONS[name](engine.shape)
    found = engine.generate(asked, intervention)
    assert found == reference.generate(asked, intervention)
    assert found != original
    assert engine.generate(asked) == original


def test_the_first_generated_token_is_the_untouched_models(
    engine: VLLMEngine, original: list[Answer], asked: list[list[int]]
) -> None:
    """It is predicted from the prompt alone."""
    added = Add(few(engine.shape), numbers(engine.shape), 3.0, positions="generated")
    found = engine.generate(asked, Intervention(added))
    assert [answer.tokens[0] for answer in found] == [answer.tokens[0] for answer in original]
    assert sum(a.tokens != b.tokens for a, b in zip(found, original, strict=True)) > 30


def test_an_empty_set_masks_nothing(
    engine: VLLMEngine, original: list[Answer], asked: list[list[int]]
) -> None:
    assert engine.generate(asked, zero(NeuronSet.empty(engine.shape))) == original
    assert engine.generate([]) == []


def test_answers_do_not_depend_on_the_batch(
    engine: VLLMEngine, original: list[Answer], asked: list[list[int]]
) -> None:
    assert [engine.generate([ids])[0] for ids in asked[:5]] == original[:5]
    assert engine.generate(asked[::-1]) == original[::-1]


def test_impossible_requests_are_refused_and_the_engine_goes_on(
    engine: VLLMEngine, original: list[Answer], asked: list[list[int]]
) -> None:
    with pytest.raises(ValueError, match=r"prompt 1 has 512 tokens.*context of 512"):
        engine.generate([asked[0], [5] * 512])
    with pytest.raises(ValueError, match="different models"):
        engine.generate(asked, zero(some({"intermediate": (4, 500)}, {"intermediate": 0.1})))
    with pytest.raises(ValueError, match="different models"):
        engine.generate(asked, Intervention(Scale(few({"intermediate": (4, 500)}), 2.0)))
    assert engine.generate(asked[:3]) == original[:3]


def test_in_a_quantised_checkpoint_only_zero_is_done(
    engine: VLLMEngine, asked: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._llm.model_config, "quantization", "fp8")
    with pytest.raises(ValueError, match=r"quantise .* \(fp8\) .*only be set to zero"):
        engine.generate(asked, Intervention(Scale(few(engine.shape), 2.0)))
    assert engine.generate(asked[:3], zero(few(engine.shape)))


def test_stop_strings_and_a_full_context_end_answers_alike(
    engine: VLLMEngine, loaded: tuple[Any, Any], original: list[Answer], asked: list[list[int]]
) -> None:
    """The context is fixed at the start, the rest of the decoding is read at each call."""
    words = [answer.text.split()[-2] for answer in original[:2]]
    lowered = Decoding(max_new_tokens=9, stop=(*words, " có", "。"), repetition_penalty=1.4)
    long = [ids + asked[0] * ((511 - len(ids)) // len(asked[0])) for ids in asked[:6]]
    engine.decoding = lowered
    try:
        found = engine.generate(asked + long)
    finally:
        engine.decoding = DECODING
    expected = HuggingFaceEngine(*loaded, lowered, progress=False).generate(asked + long)
    assert found == expected
    assert {answer.finish for answer in found} == {"stop", "length"}


def test_prompts_in_pieces_and_computed_again_are_no_generated_tokens(
    loaded: tuple[Any, Any], asked: list[list[int]]
) -> None:
    """Little room: few tokens in a pass, and answers that are put off for want of memory."""
    decoding, equal = Decoding(max_new_tokens=64), [(ids * 20)[:112] for ids in asked[::4]]
    reference = HuggingFaceEngine(*loaded, decoding, progress=False)
    small = {"max_num_batched_tokens": 48, "num_gpu_blocks_override": 6, "block_size": 128}
    with start(TESTBED / "base", decoding, **small, disable_log_stats=False) as engine:
        for name in ("generated", "generated at act_fn, and everywhere"):
            intervention = INTERVENTIONS[name](engine.shape)
            found = engine.generate(equal, intervention)
            assert found == reference.generate(equal, intervention)
        counts = {metric.name: metric for metric in engine._llm.get_metrics()}
        assert counts["vllm:num_preemptions"].value > 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each worker")
def test_two_workers_change_a_shard_each(
    reference: HuggingFaceEngine, asked: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "|".join(map(str, cores)))
    neurons = some(models.shape(reference.model), MASKS["all sites"])
    with start(TESTBED / "base", tensor_parallel_size=2) as engine:
        assert engine.shape == models.shape(reference.model)
        assert engine.generate(asked, zero(neurons)) == reference.generate(asked, zero(neurons))
        for name in ("one after the other", "at act_fn", "projections", "generated"):
            intervention = INTERVENTIONS[name](engine.shape)
            assert engine.generate(asked, intervention) == reference.generate(asked, intervention)
        assert engine.generate(asked) == reference.generate(asked)


def test_a_baked_chat_checkpoint_answers_as_the_masked_model(tmp_path: Path) -> None:
    model, tokenizer = models.load(TESTBED / "chat")
    neurons = some(models.shape(model), {"intermediate": 0.2})
    decoding = Decoding(max_new_tokens=48, context=160)
    asked = prompts(tokenizer, questions(12), chat=True)
    assert len(asked) == 36
    reference = HuggingFaceEngine(model, tokenizer, decoding, progress=False)
    expected = reference.generate(asked, zero(neurons))
    assert expected != reference.generate(asked)
    baked = bake(model, neurons, tmp_path / "baked", tokenizer)
    engine = start(baked, decoding)
    try:
        assert engine.generate(asked) == expected
    finally:
        engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.generate(asked)
    engine.close()


def test_a_checkpoint_that_cannot_serve_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8192 tokens exceeds the model's 512 positions"):
        start(TESTBED / "base", Decoding(context=8192))
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        start(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model"):
        start(tmp_path / "none")
