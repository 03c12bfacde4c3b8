import json
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import (
    AddedToken,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from crane_core import models
from crane_core.interventions import UNTOUCHED, Intervention, SetTo, zero
from crane_core.masking import masked
from crane_core.neurons import NeuronSet
from crane_lab.engines import decoding, generation
from crane_lab.engines.generation import (
    STOP,
    Answer,
    Decoding,
    HuggingFaceEngine,
    prompts,
    read_questions,
)
from crane_lab.engines.vllm_engine import VLLMEngine, by_length
from crane_lab.stages import answering

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
        (
            b"Who?\nnan\n",
            r"line 2: the question is 'nan', which tables have where",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("Who?\nWhat?".encode("utf-16"), "not valid UTF-8 but UTF-16"),
        (b"Access denied", "says only 'Access denied'"),
        (b"Who?\nWh\xe9n?\n", r"not valid UTF-8 \(byte 7, line 2\); save it as UTF-8"),
        (b"Who?\n\xe2\x80\x8b\n", r"1 blank line\(s\), the first is line 2"),
        (b"Who?\nWh\0at?\n", r"en\.txt, line 2: it has NUL characters"),
        (b"Who?\nWhat?\n Who? \n", r"line 3: the question of line 1 once more \('Who\?'\).*remove"),
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
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be positive"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be positive"),
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


def test_rows_that_have_ended_leave_their_batch(
    testbed: tuple[Any, Any], asked: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the segment, the same answers, also where only generated positions are masked."""
    model, tokenizer = testbed
    steps = Intervention(SetTo(some(model, "intermediate", share=0.05), 0.0, positions="generated"))
    engine = HuggingFaceEngine(model, tokenizer, Decoding(40, stop=STOP), progress=False)
    rows: list[int] = []

    def count(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        rows.append(len(kwargs["input_ids"]))

    found, work = [], []
    for segment in (1000, 8, 1):
        monkeypatch.setattr(decoding, "SEGMENT", segment)
        handle = model.register_forward_pre_hook(count, with_kwargs=True)
        try:
            found.append([engine.generate(asked), engine.generate(asked, steps)])
        finally:
            handle.remove()
        work.append(sum(rows))
        rows.clear()
    assert found[0] == found[1] == found[2] and found[0][0] != found[0][1]
    assert work[0] > work[1] > work[2]
    # One at a time: no row is computed that has ended.
    assert work[2] == sum(len(answer.tokens) for answers in found[2] for answer in answers)


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
    with pytest.raises(ValueError, match=r"prompt 1 has token 3072, but .* has 3072 \(1 of 2 pr"):
        engine.generate([[1], [1, 3072]])
    with pytest.raises(ValueError, match="exceeds the model's 512 positions; set context to 512"):
        HuggingFaceEngine(model, tokenizer, Decoding(context=8192))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        HuggingFaceEngine(model, tokenizer, batch_size=0)
    with pytest.raises(ValueError, match="different models"):
        engine.generate([[1, 5]], zero(some(make_llama(), "intermediate")))
    assert engine.generate([]) == []
    (answer,) = engine.generate([[1, 5]])
    assert isinstance(answer, Answer)


def test_settings_of_a_checkpoint_that_force_tokens_do_not_count(
    testbed: tuple[Any, Any], asked: list[list[int]]
) -> None:
    model, tokenizer = testbed
    kept = model.generation_config
    expected = HuggingFaceEngine(*testbed, Decoding(12), progress=False).generate(asked[:2])
    model.generation_config = GenerationConfig(
        suppress_tokens=[token for answer in expected for token in answer.tokens[:-1]],
        begin_suppress_tokens=[expected[0].tokens[0]],
        forced_eos_token_id=5,
        no_repeat_ngram_size=1,
        bad_words_ids=[[expected[1].tokens[0]]],
        max_length=3,
        repetition_penalty=9.0,
        eos_token_id=2,
    )
    try:
        engine = HuggingFaceEngine(model, tokenizer, Decoding(12), progress=False)
        assert engine.generate(asked[:2]) == expected
    finally:
        model.generation_config = kept


def test_logits_that_are_no_numbers_are_refused(make_llama: Make, tokenizer: Any) -> None:
    model = make_llama(vocab_size=3072)
    torch.nn.init.constant_(model.model.norm.weight, float("nan"))
    engine = HuggingFaceEngine(model, tokenizer, Decoding(4), progress=False)
    with pytest.raises(ValueError, match=r"logits \(float32\) are not numbers: .* bfloat16"):
        engine.generate([[1, 5]])


# --------------------------------------------------------------------------------------- thoughts


def spelled(tokenizer: Any, text: str, prompt: str = "", ends: bool = True) -> Answer:
    """The answer of a model that generates `text` after a prompt that ends with `prompt`."""
    ids = [tokenizer(x, add_special_tokens=False)["input_ids"] for x in (text, prompt)]
    return generation.answer(tokenizer, [*ids[0], *([2] if ends else [])], [2], (), ids[1])


@pytest.fixture(scope="module", params=[False, True], ids=["text", "tokens"])
def marked(request: pytest.FixtureRequest) -> Any:
    """A tokenizer; in the second, some marks of thoughts are special tokens of its own."""
    found = AutoTokenizer.from_pretrained(str(TESTBED / "chat"))
    if request.param:
        names = ["<think>", "</think>", "[THINK]", "[/THINK]", "<|channel|>", "<|message|>"]
        found.add_tokens([AddedToken(name, special=True) for name in names])
    return found


@pytest.mark.parametrize(
    ("before", "text", "left"),
    [
        ("", "<think>\nOkay, he asks.\n</think>\n\nIn Hà Nội.", "In Hà Nội."),
        ("", " <think></think>In Hà Nội.", "In Hà Nội."),
        ("", "Okay, he asks.\n</think>\n\nIn Hà Nội.", "In Hà Nội."),
        ("[bot]<think>\n", "Okay, he asks.</think>In Hà Nội.", "In Hà Nội."),
        ("<think>\n\n</think>\n\n", "In Hà Nội.", "In Hà Nội."),
        ("", "<think>One.</think><think>Two.</think>在河内。", "在河内。"),
        ("", "<Thinking>Hm.</Thinking> <answer>In Hà Nội.</answer>", "In Hà Nội."),
        ("", "<reasoning>Hm.</reasoning>In Hà Nội.", "In Hà Nội."),
        ("", "<thought>Hm.</thought>In Hà Nội.", "In Hà Nội."),
        ("", "<seed:think>Hm.</seed:think>In Hà Nội.", "In Hà Nội."),
        ("", "[THINK]Hm.[/THINK]In Hà Nội.", "In Hà Nội."),
        ("", "<|START_THINKING|>Hm.<|END_THINKING|>In Hà Nội.", "In Hà Nội."),
        ("", "◁think▷Hm.◁/think▷In Hà Nội.", "In Hà Nội."),
        (
            "",
            "<|begin_of_thought|>Hm.<|end_of_thought|>\n"
            "<|begin_of_solution|>In Hà Nội.<|end_of_solution|>",
            "In Hà Nội.",
        ),
        (
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
            "<|channel|>final<|message|>In Hà Nội.",
            "In Hà Nội.",
        ),
        ("", "<|channel>thought\nHm.<channel|>In Hà Nội.", "In Hà Nội."),
    ],
)
def test_thoughts_are_no_part_of_an_answer(marked: Any, before: str, text: str, left: str) -> None:
    found = spelled(marked, text, before)
    assert (found.text, found.finish) == (left, "stop")
    cut = spelled(marked, text, before, ends=False)
    assert (cut.text, cut.finish) == (left, "length")


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("", "<think>\nOkay, he asks where"),
        ("[bot]<think>\n", "Okay, he asks where"),
        ("[bot]<think>\n", ""),
        ("", "[THINK]Hm. Is it"),
        ("", "<|channel|>analysis<|message|>Hm. Is it"),
        ("", "<think>One.</think>\n<think>Two."),
    ],
)
def test_an_answer_within_thoughts_is_none(marked: Any, before: str, text: str) -> None:
    for ends in (True, False):
        found = spelled(marked, text, before, ends)
        assert (found.text, found.finish) == ("", "thinking")


@pytest.mark.parametrize(
    "text",
    [
        "The tag <think> opens and </think> closes.",
        "It is `</think>` that closes.",
        "I think so. [1]",
        "The rest </b> is </reason> here.",
        "",
    ],
)
def test_an_answer_that_talks_of_thoughts_is_kept(testbed: tuple[Any, Any], text: str) -> None:
    assert spelled(testbed[1], text) == Answer(text, spelled(testbed[1], text).tokens, "stop")


class Thinker:
    """An engine whose answers are given, and which keeps what it is asked together."""

    decoding = Decoding()

    def __init__(self, *finishes: str):
        self.finishes, self.asked = finishes, []  # type: ignore[var-annotated]

    def generate(self, prompts: Any, intervention: Any) -> list[Answer]:
        self.asked.append([ids[0] for ids in prompts])
        return [Answer(f"{ids[0]}", (), self.finishes[ids[0]]) for ids in prompts]


def test_every_language_is_answered_on_its_own_and_thoughts_are_counted() -> None:
    asked = pd.DataFrame({"task": ["open_en", "open_zh", "open_en"]})
    engine: Any = Thinker("stop", "thinking", "length")
    with pytest.warns(UserWarning, match=r"1 of 3 answers ended within .* raise max_new_tokens"):
        found = answering.said(engine, asked, [[0], [1], [2]], UNTOUCHED)
    assert engine.asked == [[0, 2], [1]]
    assert list(found["text"]) == ["0", "1", "2"]
    assert list(found["finish"]) == ["stop", "thinking", "length"]


def test_a_model_that_only_thinks_is_an_error_before_anything_is_judged(make_llama: Make) -> None:
    asked = pd.DataFrame({"task": ["open_en"] * 2})
    engine: Any = Thinker(*["thinking"] * 2)
    with pytest.raises(ValueError, match=r"2 of 2 answers ended within .* without thinking"):
        answering.said(engine, asked, [[0], [1]], UNTOUCHED)
    # Under a mask it is a result.
    masked_ = zero(some(make_llama(), "intermediate"))
    with pytest.warns(UserWarning, match="2 of 2"):
        assert len(answering.said(engine, asked, [[0], [1]], masked_)) == 2


# ------------------------------------------------------------------- vLLM, as far as it goes here


def test_vllm_reserves_what_the_run_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not all positions of the model, of which long ones have more than a card holds."""

    class Stub:
        def __init__(self, **options: Any) -> None:
            self.options, self.llm_engine = options, types.SimpleNamespace(engine_core=self)

        def get_tokenizer(self) -> Any:
            return types.SimpleNamespace(eos_token_id=2)

        def collective_rpc(self, name: str) -> Any:
            return [{}]

        def shutdown(self) -> None:
            pass

    stub: Any = types.ModuleType("vllm")
    stub.LLM, stub.__spec__ = Stub, ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", stub)
    LlamaConfig(max_position_embeddings=131072).save_pretrained(tmp_path)

    def reserved(decoding: Decoding, **options: Any) -> int:
        with VLLMEngine(tmp_path, decoding, progress=False, **options) as engine:
            return int(engine._llm.options["max_model_len"])

    assert reserved(Decoding(256), longest_prompt=60) == 316
    assert reserved(Decoding(256)) == 1280
    assert reserved(Decoding(256, context=4096), longest_prompt=60) == 4096
    assert reserved(Decoding(200_000), longest_prompt=60) == 131072
    engine = VLLMEngine(tmp_path, Decoding(256), progress=False, longest_prompt=60)
    with pytest.raises(ValueError, match=r"61 tokens.* reserved for 60; .*longest_prompt=61"):
        engine.generate([[1], [1] * 61])


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


def test_prompts_of_one_length_go_together() -> None:
    assert by_length([[1, 2], [3], [4, 5], [6]]) == [[1, 3], [0, 2]]
    assert by_length([]) == []
