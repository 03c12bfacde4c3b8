import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaForCausalLM

from crane_core import models
from crane_core.interventions import zero
from crane_core.masking import masked
from crane_core.neurons import NeuronSet
from crane_lab.engines.generation import (
    STOP,
    Answer,
    Decoding,
    HuggingFaceEngine,
    prompts,
    read_questions,
)
from crane_lab.engines.vllm_engine import MaskingExtension, VLLMEngine, fused_gate_up, shard

Make = Callable[..., LlamaForCausalLM]
ROOT = Path(__file__).resolve().parents[2]
TESTBED = ROOT / "data" / "testbed"
LAPE = ROOT / "shared" / "reference" / "lape"
LAPE = LAPE if LAPE.is_dir() else ROOT.parent / "shared" / "reference" / "lape"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def testbed() -> tuple[Any, Any]:
    return models.load(TESTBED / "base")


@pytest.fixture
def tokenizer(testbed: tuple[Any, Any]) -> Iterator[Any]:
    """The testbed's tokenizer, its chat template put back afterwards."""
    found = testbed[1]
    kept = found.chat_template
    yield found
    found.chat_template = kept


@pytest.fixture(scope="module")
def asked(testbed: tuple[Any, Any]) -> list[list[int]]:
    """Prompts of 11 to about 100 tokens in three languages: questions, some behind a passage."""
    texts = []
    for language in ("en", "zh", "vi"):
        for kind in ("knowledge", "reading"):
            lines = (TESTBED / "tasks" / f"{kind}_{language}.jsonl").read_text("utf-8").split("\n")
            items = [json.loads(line) for line in lines[:3]]
            texts += [f"{item['passage']} {item['question']}".strip() for item in items]
    return prompts(testbed[1], texts, chat=False)


def some(model: LlamaForCausalLM, *sites: str, share: float = 0.3) -> NeuronSet:
    generator = torch.Generator().manual_seed(0)
    shape = models.shape(model)
    return NeuronSet({s: torch.rand(shape[s], generator=generator) < share for s in sites}, shape)


def alone(model: Any, ids: list[int], n: int, **settings: Any) -> tuple[int, ...]:
    """One unpadded prompt through transformers, without anything of ours."""
    settings = {"repetition_penalty": 1.1, **settings}
    config = GenerationConfig(max_new_tokens=n, do_sample=False, **settings)
    with torch.no_grad():
        out = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            generation_config=config,
        )
    return tuple(out[0, len(ids) :].tolist())


# ------------------------------------------------------------------------------------- questions


def write(folder: Path, **contents: bytes) -> Path:
    for language, content in contents.items():
        (folder / f"{language}.txt").write_bytes(content)
    return folder


def test_questions_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path, en=b"Who?\r\nWhat?\r\n", zh="谁？\n什么？".encode())
    assert read_questions(tmp_path, ["zh", "en"]) == {
        "zh": ["谁？", "什么？"],
        "en": ["Who?", "What?"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected one question per line"),
        (b"\n \n", "is empty; expected one question per line"),
        (b"Who?\n\nWhat?\n", r"1 blank line\(s\), the first is line 2 of 3.*remove the line"),
        (b"\xef\xbb\xbfWho?\nWhat?\n", "byte order mark.*without BOM"),
        (b"Who?\nWh\xe9n?\n", r"not valid UTF-8 \(byte 7, line 2\); save it as UTF-8"),
        (b"Who?\n", r"different numbers of questions \(zh: 2, en: 1\).*add the missing"),
    ],
)
def test_bad_question_files_say_what_to_do(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, en=content, zh="谁？\n什么？\n".encode())
    with pytest.raises(ValueError, match=message):
        read_questions(tmp_path, ["zh", "en"])


def test_missing_questions_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"question folder .* does not exist; expected one"):
        read_questions(tmp_path / "none", ["en"])
    write(tmp_path, en=b"Who?\n", vi=b"Ai?\n")
    with pytest.raises(FileNotFoundError, match=r"language 'zh'.*available: en, vi"):
        read_questions(tmp_path, ["en", "zh"])
    with pytest.raises(ValueError, match="list of language codes"):
        read_questions(tmp_path, "en")


@pytest.mark.skipif(not LAPE.is_dir(), reason="LAPE's released question files are not here")
def test_released_files_of_lape_are_read_as_they_are(testbed: tuple[Any, Any]) -> None:
    questions = read_questions(LAPE, ["en", "zh", "vi"])
    assert [len(lines) for lines in questions.values()] == [70, 70, 70]
    assert questions["en"][0] == "How can I improve my time management skills?"
    assert all(prompts(testbed[1], questions["zh"], chat=False))


# --------------------------------------------------------------------------------------- prompts


def test_base_prompts_are_the_frame_behind_one_bos(tokenizer: Any) -> None:
    (ids,) = prompts(tokenizer, ["Who?"], chat=False)
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Q: Who?\nA:"
    assert prompts(tokenizer, [], chat=False) == []


@pytest.mark.parametrize("opening", ["{{ bos_token }}", "", "{{ bos_token }}{{ bos_token }}"])
def test_chat_prompts_are_the_template_behind_one_bos(tokenizer: Any, opening: str) -> None:
    tokenizer.chat_template = TEMPLATE.replace("{{ bos_token }}", opening)
    (ids,) = prompts(tokenizer, ["谁？"], chat=True)
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<user> 谁？\n<assistant>"


def test_missing_chat_template_is_said(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"no chat template; expected .* chat=False"):
        prompts(tokenizer, ["Who?"], chat=True)


@pytest.mark.skipif(not (TESTBED / "chat" / "SHA256SUMS").is_file(), reason="no chat model yet")
def test_chat_model_of_the_testbed_answers() -> None:
    model, tokenizer = models.load(TESTBED / "chat")
    asked = prompts(tokenizer, ["Who are you?", "你是谁？"], chat=True)
    for ids in asked:
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    answers = HuggingFaceEngine(model, tokenizer, progress=False).generate(asked)
    assert all(answer.text and answer.finish == "stop" for answer in answers)


# --------------------------------------------------------------------------------------- engine


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive"),
        ({"context": 1}, "context must hold"),
        ({"stop": ("",)}, "empty string"),
    ],
)
def test_decoding_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)
    with pytest.raises(TypeError, match="tuple of strings"):
        Decoding(stop="\nQ:")  # type: ignore[arg-type]


def test_answers_do_not_depend_on_the_batch(
    testbed: tuple[Any, Any], asked: list[list[int]]
) -> None:
    decoding = Decoding(max_new_tokens=40, stop=STOP)
    answers = [
        HuggingFaceEngine(*testbed, decoding, batch_size=size, progress=False).generate(asked)
        for size in (1, 4, 70)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert {answer.finish for answer in answers[0]} == {"stop", "length"}
    assert len({len(answer.tokens) for answer in answers[0]}) > 5
    reverse = HuggingFaceEngine(*testbed, decoding, progress=False).generate(asked[::-1])
    assert reverse[::-1] == answers[0]


def test_answers_are_those_of_generate_one_by_one(
    testbed: tuple[Any, Any], asked: list[list[int]]
) -> None:
    """The reference is unpadded, so padding counts neither for attention nor as a repetition."""
    model, tokenizer = testbed
    engine = HuggingFaceEngine(model, tokenizer, Decoding(max_new_tokens=30), progress=False)
    for ids, answer in zip(asked, engine.generate(asked), strict=True):
        expected = alone(model, ids, 30, eos_token_id=2, pad_token_id=0)
        assert answer.tokens == expected
        assert answer.finish == ("stop" if expected[-1] == 2 else "length")
        assert answer.text == tokenizer.decode(expected, skip_special_tokens=True).strip()


def test_padding_is_no_repetition(make_llama: Make, tokenizer: Any) -> None:
    """The padding token is what the shorter prompt's answer begins with: were it counted as a
    repetition, the answer would be another."""
    model = make_llama(vocab_size=3072)
    ids = [[1, 7, 8], [1, *range(20, 50)]]
    settings: dict[str, Any] = {"repetition_penalty": 2.0}
    expected = [alone(model, one, 8, **settings) for one in ids]
    kept = tokenizer.pad_token_id
    padding = expected[0][0]
    model.config.pad_token_id = model.generation_config.pad_token_id = padding
    tokenizer.pad_token_id = padding
    try:
        engine = HuggingFaceEngine(model, tokenizer, Decoding(8, **settings), progress=False)
        assert [answer.tokens for answer in engine.generate(ids)] == expected
    finally:
        tokenizer.pad_token_id = kept


def test_a_mask_changes_the_answers_and_leaves_no_trace(
    testbed: tuple[Any, Any], asked: list[list[int]]
) -> None:
    model, tokenizer = testbed
    before, settings = models.fingerprint(model), model.generation_config
    engine = HuggingFaceEngine(model, tokenizer, Decoding(max_new_tokens=12), progress=False)
    original = engine.generate(asked)
    for sites in (("intermediate",), ("gate", "down")):
        neurons = some(model, *sites)
        found = engine.generate(asked, zero(neurons))
        assert found != original
        with masked(model, neurons):
            assert found == engine.generate(asked)
    assert engine.generate(asked, zero(NeuronSet.empty(models.shape(model)))) == original
    assert engine.generate(asked) == original
    assert models.fingerprint(model) == before and model.generation_config is settings


def test_the_checkpoints_own_settings_do_not_count(
    testbed: tuple[Any, Any], asked: list[list[int]]
) -> None:
    model, tokenizer = testbed
    kept = model.generation_config
    expected = HuggingFaceEngine(*testbed, progress=False).generate(asked[:2])
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, min_new_tokens=60, num_beams=2, eos_token_id=[2, 9]
    )
    try:
        engine = HuggingFaceEngine(model, tokenizer, progress=False)
        # Its end-of-sequence tokens do.
        assert engine.generate(asked[:2]) == expected
        assert engine._decoder.ends == [2, 9]
    finally:
        model.generation_config = kept


def test_stop_strings_end_an_answer(make_llama: Make, testbed: tuple[Any, Any]) -> None:
    model, tokenizer = testbed
    asked = prompts(tokenizer, ["Who is Martin Reed?", "Where does Helen Vance live?"], chat=False)
    free = HuggingFaceEngine(model, tokenizer, progress=False).generate(asked)
    word = free[0].text.split()[2]
    engine = HuggingFaceEngine(model, tokenizer, Decoding(stop=(word, "\nQ:")), progress=False)
    answer, other = engine.generate(asked)
    assert answer.text == free[0].text.split(word)[0].strip() and word not in answer.text
    assert answer.finish == "stop" and word in tokenizer.decode(answer.tokens)
    assert word not in tokenizer.decode(answer.tokens[:-1])
    assert answer.tokens == free[0].tokens[: len(answer.tokens)]
    if word not in free[1].text:
        assert other == free[1]


@pytest.mark.parametrize("stop", ["哥", " "])
def test_stop_strings_of_any_sign(testbed: tuple[Any, Any], stop: str) -> None:
    model, tokenizer = testbed
    asked = prompts(tokenizer, ["Who is Martin Reed?", "哪个镇是胡德华的家乡？"], chat=False)
    free = HuggingFaceEngine(model, tokenizer, progress=False).generate(asked)
    engine = HuggingFaceEngine(model, tokenizer, Decoding(stop=(stop,)), progress=False)
    for one, other in zip(engine.generate(asked), free, strict=True):
        raw = tokenizer.decode(other.tokens, skip_special_tokens=True)
        assert one.text == raw.split(stop)[0].strip()


def test_without_an_end_token_answers_are_as_long_as_they_may_be(
    testbed: tuple[Any, Any], asked: list[list[int]]
) -> None:
    engine = HuggingFaceEngine(*testbed, Decoding(30), progress=False)
    engine._decoder.ends = []
    answers = engine.generate(asked[:2])
    assert [(len(answer.tokens), answer.finish) for answer in answers] == [(30, "length")] * 2


def test_a_full_context_cuts_each_answer_on_its_own(make_llama: Make, tokenizer: Any) -> None:
    model = make_llama(vocab_size=3072)  # 64 positions
    ids = [[1, *range(10, 10 + n)] for n in (3, 40, 59)]
    answers = HuggingFaceEngine(model, tokenizer, Decoding(16), progress=False).generate(ids)
    assert [len(answer.tokens) for answer in answers] == [16, 16, 4]
    assert [answer.finish for answer in answers] == ["length"] * 3
    assert answers[2].tokens == alone(model, ids[2], 4)
    short = HuggingFaceEngine(model, tokenizer, Decoding(16, context=62), progress=False)
    assert [len(answer.tokens) for answer in short.generate(ids)] == [16, 16, 2]


def test_a_batch_ends_with_its_last_answer(
    testbed: tuple[Any, Any], asked: list[list[int]]
) -> None:
    model, tokenizer = testbed
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = model.register_forward_hook(count)
    try:
        answers = HuggingFaceEngine(model, tokenizer, progress=False).generate(asked)
    finally:
        handle.remove()
    assert calls == max(len(answer.tokens) for answer in answers) < 96


def test_impossible_requests_are_refused_before_work(
    testbed: tuple[Any, Any], make_llama: Make
) -> None:
    model, tokenizer = testbed
    engine = HuggingFaceEngine(model, tokenizer, Decoding(context=20), progress=False)
    with pytest.raises(ValueError, match=r"prompt 1 has 30 tokens.*context of 20.*shorten"):
        engine.generate([[1, 2], [1] * 30])
    with pytest.raises(ValueError, match="prompt 0 has no tokens"):
        engine.generate([[]])
    with pytest.raises(ValueError, match="exceeds the model's 512 positions; set context to 512"):
        HuggingFaceEngine(model, tokenizer, Decoding(context=8192))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        HuggingFaceEngine(model, tokenizer, batch_size=0)
    with pytest.raises(ValueError, match="different models"):
        engine.generate([[1, 5]], zero(some(make_llama(), "intermediate")))
    assert engine.generate([]) == []
    (answer,) = engine.generate([[1, 5]])
    assert isinstance(answer, Answer)


# ------------------------------------------------------------------- vLLM, as far as it goes here


def test_without_vllm_its_engine_says_what_to_install() -> None:
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=r"pip install -r requirements-vllm\.txt"):
            VLLMEngine(TESTBED / "base")
    else:
        pytest.skip("vLLM is installed")


def test_options_that_masking_cannot_work_with_are_refused() -> None:
    with pytest.raises(ValueError, match="enforce_eager=False does not go with masking"):
        VLLMEngine(TESTBED / "base", enforce_eager=False)


def test_a_shard_is_a_workers_contiguous_piece() -> None:
    mask = torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    for world in (1, 2, 3, 4):
        pieces = [shard(mask, rank, world) for rank in range(world)]
        assert all(piece.shape == (3, 12 // world) for piece in pieces)
        assert torch.equal(torch.cat(pieces, dim=-1), mask)
    with pytest.raises(ValueError, match="12 neurons cannot be divided among 5 workers"):
        shard(mask, 0, 5)
    with pytest.raises(ValueError, match="no worker 2 among 2"):
        shard(mask, 2, 2)


def test_fused_mask_is_gate_then_up() -> None:
    inner, gate, up = torch.eye(4, dtype=torch.bool)[:3]
    fused = fused_gate_up(inner, gate, up, 0, 1)
    assert fused.tolist() == [True, True, False, False, True, False, True, False]
    assert fused_gate_up(inner, gate, up, 0, 2).tolist() == [True, True, True, False]
    assert fused_gate_up(inner, gate, up, 1, 2).tolist() == [False, False, True, False]


class Linear(nn.Module):
    """A piece of a linear layer, with the parts of vLLM's interface that masking uses."""

    def __init__(self, weight: Tensor, output_size: int, rank: int, world: int):
        super().__init__()
        self.weight, self.output_size = nn.Parameter(weight), output_size
        self.tp_rank, self.tp_size = rank, world

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x @ self.weight.T, None


class MLP(nn.Module):
    """The part of a gated MLP that one of `world` workers of vLLM computes."""

    def __init__(self, of: Any, rank: int, world: int):
        super().__init__()
        gate, up = (p.weight.chunk(world)[rank] for p in (of.gate_proj, of.up_proj))
        width, hidden = of.gate_proj.weight.shape
        self.gate_up_proj = Linear(torch.cat([gate, up]), 2 * width, rank, world)
        self.down_proj = Linear(of.down_proj.weight.chunk(world, dim=1)[rank], hidden, rank, world)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x)[0].chunk(2, dim=-1)
        out: Tensor = self.down_proj(nn.functional.silu(gate) * up)[0]
        return out


class Worker(MaskingExtension):
    def __init__(self, model: LlamaForCausalLM, rank: int, world: int):
        mlps = [MLP(site.mlp, rank, world) for site in models.mlp_sites(model)]
        self.mlps = nn.ModuleList(mlps)
        self.get_model = lambda: self.mlps


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("sites", [("intermediate",), ("gate", "up", "down"), ("down",)])
def test_workers_together_compute_the_masked_mlps(
    tiny_llama: LlamaForCausalLM, world: int, sites: tuple[str, ...]
) -> None:
    neurons = some(tiny_llama, *sites)
    indices = {s: [row.nonzero()[:, 0].tolist() for row in neurons.mask(s)] for s in sites}
    workers = [Worker(tiny_llama, rank, world) for rank in range(world)]
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))

    def together() -> list[Tensor]:
        layers = zip(*(worker.mlps for worker in workers), strict=True)
        return [torch.stack([mlp(x) for mlp in parts]).sum(0) for parts in layers]

    with torch.no_grad():
        original = together()
        for worker in workers:
            assert worker.crane_shape() == models.shape(tiny_llama)
            assert worker.crane_mask(indices) > 0
        found = together()
        with masked(tiny_llama, neurons):
            expected = [site.mlp(x) for site in models.mlp_sites(tiny_llama)]
        torch.testing.assert_close(found, expected)
        assert [worker.crane_mask({}) for worker in workers] == [0] * world
        torch.testing.assert_close(together(), original, rtol=0, atol=0)
