"""Every kind of step at every place in vLLM, for the paper's family and Gemma's.

Models are random, with all that their family has: biases in Llama's MLPs, Gemma's sliding windows
and tied embeddings, norms that are not 1. Expected is what the other engine answers.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import INTERVENTIONS, MASKS, STEPS, TESTBED, few, numbers, questions, some, start, step

from crane_core import models
from crane_core.interventions import Intervention, zero
from crane_lab.engines.generation import Answer, Decoding, HuggingFaceEngine, prompts
from crane_lab.engines.vllm_engine import VLLMEngine

# The makers of tiny models are the main tests'.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from conftest import make_tiny

torch.set_num_threads(1)

FAMILIES = ("llama", "gemma3_text")
DECODING = Decoding(max_new_tokens=12)
#: Few, because at generated positions vLLM answers one length after the other; all longer than
#: Gemma's sliding window, the longest longer than a block of vLLM's memory.
LENGTHS = (9, 30, 150)
#: An answer that an intervention does not reach proves nothing: so many of 36 must change.
CHANGED = 30


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = models.load_tokenizer(TESTBED / "base")
    # vLLM has no attention for narrower heads.
    options: dict[str, Any] = {"hidden_size": 64, "head_dim": 32, "max_position_embeddings": 256}
    if request.param == "gemma3_text":
        # Tied embeddings that outweigh what the layers add repeat the last token.
        options["initializer_range"] = 0.04
    model = make_tiny(request.param, vocab_size=len(tokenizer), **options)
    folder: Path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> tuple[Any, Any]:
    return models.load(checkpoint)


@pytest.fixture(scope="module")
def reference(loaded: tuple[Any, Any]) -> HuggingFaceEngine:
    return HuggingFaceEngine(*loaded, DECODING, progress=False)


@pytest.fixture(scope="module")
def asked(loaded: tuple[Any, Any]) -> list[list[int]]:
    own = prompts(loaded[1], questions(12), chat=False)
    # Without what they all begin with.
    return [(ids[3:] * 20)[: LENGTHS[index % len(LENGTHS)]] for index, ids in enumerate(own)]


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[VLLMEngine]:
    with start(checkpoint, DECODING) as started:
        yield started


@pytest.fixture(scope="module")
def original(engine: VLLMEngine, asked: list[list[int]]) -> list[Answer]:
    return engine.generate(asked)


def check(
    intervention: Intervention,
    engine: VLLMEngine,
    reference: HuggingFaceEngine,
    original: list[Answer],
    asked: list[list[int]],
) -> None:
    found = engine.generate(asked, intervention)
    assert found == reference.generate(asked, intervention)
    assert sum(a.tokens != b.tokens for a, b in zip(found, original, strict=True)) >= CHANGED


def test_models_are_what_they_stand_for(
    loaded: tuple[Any, Any],
    engine: VLLMEngine,
    reference: HuggingFaceEngine,
    original: list[Answer],
    asked: list[list[int]],
) -> None:
    config = loaded[0].config
    if config.model_type == "gemma3_text":
        assert config.tie_word_embeddings and config.sliding_window < min(LENGTHS)
        assert {*config.layer_types} == {"sliding_attention", "full_attention"}
    else:
        assert config.mlp_bias
    assert engine.shape == models.shape(loaded[0])
    assert len({*map(tuple, asked)}) == 36 and {*map(len, asked)} == {*LENGTHS}
    assert original == reference.generate(asked)
    assert len({answer.tokens for answer in original}) >= CHANGED


@pytest.mark.parametrize("name", STEPS)
def test_every_step_is_hugging_faces(
    name: str,
    engine: VLLMEngine,
    reference: HuggingFaceEngine,
    original: list[Answer],
    asked: list[list[int]],
) -> None:
    neurons = {site: few(engine.shape, site=site) for site in engine.shape}
    intervention = Intervention(step(name, neurons, numbers(engine.shape)))
    check(intervention, engine, reference, original, asked)


# Llama's are tested on the testbed, which is one.
@pytest.mark.parametrize("checkpoint", FAMILIES[1:], indirect=True)
@pytest.mark.parametrize("name", [*MASKS, *INTERVENTIONS])
def test_masks_and_several_steps_are_hugging_faces(
    name: str,
    engine: VLLMEngine,
    reference: HuggingFaceEngine,
    original: list[Answer],
    asked: list[list[int]],
) -> None:
    mask = name in MASKS
    made = zero(some(engine.shape, MASKS[name])) if mask else INTERVENTIONS[name](engine.shape)
    check(made, engine, reference, original, asked)


def test_the_model_is_left_as_it_was(
    engine: VLLMEngine, original: list[Answer], asked: list[list[int]]
) -> None:
    assert engine.generate(asked) == original
