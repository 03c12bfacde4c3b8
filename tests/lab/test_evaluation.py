"""Multiple choice through lm-eval with shared contexts, free answers, perplexity."""

import dataclasses
import json
import math
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as token_models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from crane_core import models
from crane_lab.engines import evaluation

LINES = [
    "The river is long. The cat sleeps in the garden. Question: What is the capital? Answer: Paris",
    "河很长。猫在花园里睡觉。问题：首都是哪里？回答：巴黎",
    "Con sông dài. Con mèo ngủ trong vườn. Câu hỏi: Thủ đô là gì? Trả lời: Hà Nội",
]
PLACES = {
    "en": ["Paris", "Rome", "Lima", "New Delhi", "Old Town", "Oslo"],
    "zh": ["巴黎", "罗马", "利马", "新德里", "老城", "奥斯陆"],
    "vi": ["Pa-ri", "Hà Nội", "Đà Nẵng", "Huế", "Phố cổ", "Cần Thơ"],
}
PASSAGES = {
    "en": ["The river is long. The cat sleeps.", "The cat sleeps in the garden. It is long."],
    "zh": ["河很长。猫睡觉。", "猫在花园里睡觉。很长。"],
    "vi": ["Con sông dài. Con mèo ngủ.", "Con mèo ngủ trong vườn. Dài."],
}
N_ITEMS = 9


def make_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(token_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 3, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


TOKENIZER, WITH_BOS = make_tokenizer(), make_tokenizer(bos=True)


def make_model(seed: int = 0, **overrides: Any) -> LlamaForCausalLM:
    options: dict[str, Any] = {
        "vocab_size": len(TOKENIZER),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        **overrides,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**options)).eval()


def constant_model(token: int) -> LlamaForCausalLM:
    """Whatever comes in, `token` is the likeliest to come next."""
    model = make_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(
            F.one_hot(torch.tensor(token), len(TOKENIZER)).float()
        )
    return model


MODEL = make_model()


def make_item(task: str, index: int, **changes: Any) -> dict[str, Any]:
    kind, language = task.split("_")
    places = PLACES[language]
    return {
        "id": f"{task}-{index:04d}",
        "passage": PASSAGES[language][index % 2] if kind == "reading" else "",
        "question": f"{places[index % 6]} {index}?",
        "options": [places[(index + step) % 6] for step in range(4)],
        "answer": index % 4,
        "relation": "capital",
        **changes,
    }


def write_items(folder: Path, task: str, items: list[Any]) -> None:
    lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
    (folder / f"{task}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The repository's task files beside a few made-up items."""
    copy = tmp_path / "tasks"
    shutil.copytree(evaluation.FOLDER, copy, ignore=shutil.ignore_patterns("*.jsonl"))
    for task in evaluation.TASKS:
        write_items(copy, task, [make_item(task, index) for index in range(N_ITEMS)])
    return copy


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> evaluation.Tasks:
    copy = tmp_path_factory.mktemp("shared") / "tasks"
    shutil.copytree(evaluation.FOLDER, copy, ignore=shutil.ignore_patterns("*.jsonl"))
    for task in evaluation.TASKS:
        write_items(copy, task, [make_item(task, index) for index in range(N_ITEMS)])
    return evaluation.load_tasks(folder=copy)


@pytest.fixture(scope="module")
def prepared(tasks: evaluation.Tasks) -> evaluation.Prepared:
    return evaluation.prepare(MODEL, TOKENIZER, tasks)


def requests(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]


def assert_same_as_hflm(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pairs: list[tuple[str, str]],
    **options: Any,
) -> None:
    # With its cache HFLM scores a text that is split in two places as if it were split alike.
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, logits_cache=False)
    ours = evaluation.SharedContextLM(model, tokenizer, **options)
    expected = theirs.loglikelihood(requests(pairs), disable_tqdm=True)
    got = ours.loglikelihood(requests(pairs), disable_tqdm=True)
    torch.testing.assert_close(
        torch.tensor([logprob for logprob, _ in got]),
        torch.tensor([logprob for logprob, _ in expected]),
        rtol=1e-5,
        atol=1e-5,
    )
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]


# ---------------------------------------------------------------------------------- task files


PROMPTS = {
    "knowledge_en": ("Question: Q?\nAnswer:", " A"),
    "knowledge_zh": ("问题：Q?\n回答：", "A"),
    "knowledge_vi": ("Câu hỏi: Q?\nTrả lời:", " A"),
    "reading_en": ("P.\nQuestion: Q?\nAnswer:", " A"),
    "reading_zh": ("P.\n问题：Q?\n回答：", "A"),
    "reading_vi": ("P.\nCâu hỏi: Q?\nTrả lời:", " A"),
}


def test_prompts_as_shipped(folder: Path) -> None:
    for task in evaluation.TASKS:
        changes = {"passage": "P.", "question": "Q?", "options": list("ABCD")}
        write_items(folder, task, [make_item(task, 0, **changes)])
    tasks = evaluation.load_tasks(folder=folder)
    assert tuple(tasks) == evaluation.TASKS
    prepared = evaluation.prepare(MODEL, TOKENIZER, tasks)
    first = {request.task_name: request.args for request in reversed(prepared.requests)}
    assert first == PROMPTS
    assert list(prepared.items["language"]) == ["en", "zh", "vi"] * 2


def test_tasks_load_offline_from_anywhere_and_leave_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.chdir(elsewhere)
    before = sorted(folder.iterdir())
    task = evaluation.load_tasks(["reading_vi"], folder)["reading_vi"]
    assert [doc["id"] for doc in task.eval_docs][-1] == f"reading_vi-{N_ITEMS - 1:04d}"
    assert sorted(folder.iterdir()) == before
    assert not list(elsewhere.iterdir()) and not list((tmp_path / "tmp").iterdir())


def test_changed_items_are_noticed(folder: Path) -> None:
    path = folder / "knowledge_en.jsonl"
    times = path.stat()
    evaluation.load_tasks(["knowledge_en"], folder)
    # The same length and the same time of change: only the content tells.
    path.write_text(path.read_text().replace("-0000", "-9999"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    task = evaluation.load_tasks(["knowledge_en"], folder)["knowledge_en"]
    assert task.eval_docs[0]["id"] == "knowledge_en-9999"


def test_limit_spreads_over_the_file(folder: Path) -> None:
    task = evaluation.load_tasks(["knowledge_zh"], folder, limit=3)["knowledge_zh"]
    assert [doc["id"][-4:] for doc in task.eval_docs] == ["0000", "0003", "0006"]
    task = evaluation.load_tasks(["knowledge_zh"], folder, limit=50)["knowledge_zh"]
    assert len(task.eval_docs) == N_ITEMS
    with pytest.raises(ValueError, match="limit must be at least 1"):
        evaluation.load_tasks(["knowledge_zh"], folder, limit=0)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("{not json", "line 2: not JSON"),
        (["a list"], "line 2: expected a JSON object, got list"),
        ({"options": ["a", "b", "c"]}, r"line 2: expected 4 options, got \['a', 'b', 'c'\]"),
        ({"options": "abcd"}, "line 2: expected 4 options"),
        ({"options": ["a", "b", "c", " "]}, "line 2: every option must be a text"),
        ({"options": ["a", "b", "c", "a"]}, "line 2: options must differ"),
        ({"answer": 4}, "line 2: answer must be an index from 0 to 3, got 4"),
        ({"answer": True}, "line 2: answer must be an index from 0 to 3, got True"),
        ({"answer": "1"}, "line 2: answer must be an index"),
        ({"question": ""}, "line 2: 'question' must be a text"),
        ({"relation": None}, "line 2: 'relation' must be a text, got None"),
        ({"id": "knowledge_en-0000"}, "line 2: id 'knowledge_en-0000' stands twice"),
    ],
)
def test_malformed_item(folder: Path, item: Any, message: str) -> None:
    second = make_item("knowledge_en", 1, **item) if isinstance(item, dict) else item
    lines = [make_item("knowledge_en", 0), second if isinstance(second, str | dict) else '["a"]']
    write_items(folder, "knowledge_en", lines)
    with pytest.raises(ValueError, match=rf"knowledge_en\.jsonl, {message}"):
        evaluation.load_tasks(["knowledge_en"], folder)


def test_missing_or_empty_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown task 'knowledge_fr'.*available: knowledge_en"):
        evaluation.load_tasks(["knowledge_fr"], folder)
    with pytest.raises(FileNotFoundError, match=r"task folder .*nowhere does not exist"):
        evaluation.load_tasks(folder=tmp_path / "nowhere")
    (folder / "reading_en.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"reading_en\.jsonl is empty"):
        evaluation.load_tasks(["reading_en"], folder)
    (folder / "reading_en.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"reading_en\.jsonl is not valid UTF-8"):
        evaluation.load_tasks(["reading_en"], folder)
    (folder / "reading_en.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"'reading_en' has no items: .*reading_en\.jsonl"):
        evaluation.load_tasks(["reading_en"], folder)
    (folder / "reading_zh.yaml").write_text("task: reading_zh\n")
    with pytest.raises(ValueError, match="'reading_zh' names no items"):
        evaluation.load_tasks(["reading_zh"], folder)


def test_fingerprint_follows_items_and_prompt(folder: Path) -> None:
    before = evaluation.fingerprint(folder=folder)
    write_items(folder, "reading_en", [make_item("reading_en", 5)])
    prompt = (folder / "reading_vi.yaml").read_text().replace("Trả lời", "Đáp")
    (folder / "reading_vi.yaml").write_text(prompt)
    after = evaluation.fingerprint(folder=folder)
    changed = {task for task in evaluation.TASKS if before[task] != after[task]}
    assert changed == {"reading_en", "reading_vi"}


# ------------------------------------------------------------------------------ shared contexts


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WITH_BOS], ids=["plain", "bos"])
@pytest.mark.parametrize("rows", [{}, {"batch_tokens": 1, "row_tokens": 1}, {"row_tokens": 4096}])
def test_tasks_score_as_under_hflm(
    prepared: evaluation.Prepared, tokenizer: PreTrainedTokenizerFast, rows: dict[str, int]
) -> None:
    assert_same_as_hflm(MODEL, tokenizer, list(prepared.packed.pairs), **rows)


@settings(max_examples=30, deadline=None)
@given(
    stems=st.lists(st.text("ab \n河ế", max_size=12), min_size=1, max_size=4),
    tails=st.lists(
        st.tuples(st.integers(0, 3), st.text("ab 河", max_size=3), st.text("ab河ế ", min_size=1)),
        min_size=1,
        max_size=8,
    ),
    bos=st.booleans(),
    rows=st.sampled_from([1, 16, 4096]),
)
@example(stems=["a"], tails=[(0, "", "bbaa"), (0, "bb", "aa")], bos=False, rows=1)
def test_any_requests_score_as_under_hflm(
    stems: list[str], tails: list[tuple[int, str, str]], bos: bool, rows: int
) -> None:
    """Shared and nested prefixes, repeated requests, empty contexts, spaces at the seam."""
    pairs = [(stems[stem % len(stems)] + more, rest) for stem, more, rest in tails]
    # HFLM itself cannot encode a context of white space alone.
    pairs = [pair for pair in pairs if not pair[0] or pair[0].strip()]
    if pairs:
        assert_same_as_hflm(MODEL, WITH_BOS if bos else TOKENIZER, pairs, row_tokens=rows)


def test_greedy_continuations_are_flagged() -> None:
    model = constant_model(TOKENIZER("x")["input_ids"][0])
    pairs = [("Q:", "x"), ("Q:", "xx"), ("Q:", "xy"), ("Q:", "y"), ("A cat:", "x")]
    assert_same_as_hflm(model, TOKENIZER, pairs)
    lm = evaluation.SharedContextLM(model, TOKENIZER)
    greedy = [flag for _, flag in lm.loglikelihood(requests(pairs))]
    assert greedy == [True, True, False, False, True]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_long_texts_are_cut_on_the_left(implementation: str) -> None:
    model = make_model(max_position_embeddings=24, attn_implementation=implementation)
    pairs = [(LINES[0], " Paris"), (LINES[0], " Lima and Rome"), (LINES[1], "罗马"), ("Q:", " A")]
    assert_same_as_hflm(model, TOKENIZER, pairs)
    lm = evaluation.SharedContextLM(model, TOKENIZER)
    with pytest.raises(ValueError, match=r"has 0 tokens after 'Q:'; expected 1 to 24"):
        lm.pack([("Q:", "")])
    with pytest.raises(ValueError, match="expected 1 to 24"):
        lm.pack([("Q:", LINES[2])])


def count_tokens(model: LlamaForCausalLM, run: Callable[[], Any]) -> int:
    seen = []
    handle = model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].numel())
    )
    try:
        run()
    finally:
        handle.remove()
    return sum(seen)


def test_what_requests_share_is_computed_once(prepared: evaluation.Prepared) -> None:
    all_requests = list(prepared.requests)
    theirs = HFLM(pretrained=MODEL, tokenizer=TOKENIZER, batch_size=1)
    ours = evaluation.SharedContextLM(MODEL, TOKENIZER, batch_tokens=1)
    full = count_tokens(MODEL, lambda: theirs.loglikelihood(all_requests, disable_tqdm=True))
    shared = count_tokens(MODEL, lambda: ours.loglikelihood(all_requests, disable_tqdm=True))
    assert ours.packed is not None and shared == ours.packed.tokens
    assert full > 3 * shared


@pytest.mark.parametrize("reason", ["head", "attention", "window"])
def test_hflm_steps_in_where_trees_cannot_run(
    reason: str, prepared: evaluation.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    expected, _ = evaluation.SharedContextLM(model, TOKENIZER)._score(prepared.packed)
    if reason == "head":
        monkeypatch.setitem(models.FAMILIES, "llama", models.Family(linear_head=False))
    elif reason == "attention":
        model.config._attn_implementation = "flash_attention_2"
        monkeypatch.setattr(
            LlamaForCausalLM, "forward", forward_with(LlamaForCausalLM.forward, "sdpa")
        )
    else:
        model.config.sliding_window = prepared.packed.longest - 1
    monkeypatch.setattr(evaluation.SharedContextLM, "_score", None)
    lm = evaluation.SharedContextLM(model, TOKENIZER, packed=prepared.packed)
    got = lm.loglikelihood(list(prepared.requests), disable_tqdm=True)
    torch.testing.assert_close(
        torch.tensor([logprob for logprob, _ in got]), expected, rtol=1e-5, atol=1e-5
    )


def forward_with(forward: Callable[..., Any], implementation: str) -> Callable[..., Any]:
    def patched(self: LlamaForCausalLM, *args: Any, **kwargs: Any) -> Any:
        asked, self.config._attn_implementation = self.config._attn_implementation, implementation
        try:
            return forward(self, *args, **kwargs)
        finally:
            self.config._attn_implementation = asked

    return patched


def test_lm_eval_reports_the_same(
    tasks: evaluation.Tasks, prepared: evaluation.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval's own evaluator, with this LM, with HFLM, and `evaluate` beside them."""
    # It would start a dozen programs to describe this machine in its report.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda report: None)
    outcomes = []
    for lm in (
        HFLM(pretrained=MODEL, tokenizer=TOKENIZER, batch_size=8),
        evaluation.SharedContextLM(MODEL, TOKENIZER),
    ):
        report = lm_eval.simple_evaluate(
            lm,
            tasks=list(tasks.values()),
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False),  # indexing lm-eval's own takes long
        )
        assert report is not None
        accuracy = {task: report["results"][task]["acc,none"] for task in tasks}
        logprobs = [
            [float(response[0]) for response in sample["filtered_resps"]]
            for task in tasks
            for sample in sorted(report["samples"][task], key=lambda sample: sample["doc_id"])
        ]
        outcomes.append((accuracy, np.array(logprobs)))
    assert outcomes[0][0] == outcomes[1][0]
    np.testing.assert_allclose(outcomes[0][1], outcomes[1][1], rtol=1e-5, atol=1e-5)
    items = evaluation.evaluate(MODEL, prepared)
    assert evaluation.scores(items)["accuracy"].to_dict() == outcomes[0][0]
    columns = [f"logprob_{option}" for option in range(4)]
    np.testing.assert_allclose(items[columns].to_numpy(), outcomes[0][1], rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------- evaluation


def test_items_table(prepared: evaluation.Prepared) -> None:
    items = evaluation.evaluate(MODEL, prepared)
    assert list(items.columns) == [
        *("task", "subtask", "language", "id", "relation", "choice", "answer", "cluster"),
        *("correct", "margin"),
        *(f"logprob_{option}" for option in range(4)),
    ]
    assert len(items) == 6 * N_ITEMS and items["correct"].dtype == bool
    assert 0 < items["correct"].mean() < 1
    logprobs = items[[f"logprob_{option}" for option in range(4)]].to_numpy()
    choice, answer, correct = (items[name].tolist() for name in ("choice", "answer", "correct"))
    for row, margin in enumerate(items["margin"].tolist()):
        others = [logprobs[row, option] for option in range(4) if option != answer[row]]
        assert choice[row] == logprobs[row].argmax()
        assert correct[row] == (choice[row] == answer[row]) == (margin > 0)
        assert margin == pytest.approx(logprobs[row, answer[row]] - max(others), abs=1e-5)


def test_a_preparation_serves_other_masks_and_models(
    tasks: evaluation.Tasks, prepared: evaluation.Prepared
) -> None:
    before = evaluation.evaluate(MODEL, prepared)
    other = make_model(seed=1)
    pd.testing.assert_frame_equal(
        evaluation.evaluate(other, prepared), evaluation.evaluate(other, TOKENIZER, tasks)
    )
    handle = MODEL.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda module, inputs: (inputs[0] * 0,)
    )
    try:
        masked = evaluation.evaluate(MODEL, prepared)
    finally:
        handle.remove()
    assert (masked["logprob_0"] != before["logprob_0"]).all()
    pd.testing.assert_frame_equal(evaluation.evaluate(MODEL, prepared), before)


def test_bad_evaluations(tasks: evaluation.Tasks, prepared: evaluation.Prepared) -> None:
    with pytest.raises(TypeError, match="tasks are fixed"):
        evaluation.evaluate(MODEL, prepared, tasks)
    with pytest.raises(ValueError, match="no tasks to evaluate"):
        evaluation.prepare(MODEL, TOKENIZER, {})
    with pytest.raises(ValueError, match="maximum length of 128 tokens, but the model's is 96"):
        evaluation.evaluate(make_model(max_position_embeddings=96), prepared)
    broken = make_model()
    torch.nn.init.constant_(broken.model.layers[1].mlp.up_proj.weight, torch.nan)
    with pytest.raises(ValueError, match=r"54 of 54 items .*'knowledge_en-0000': .nan"):
        evaluation.evaluate(broken, prepared)


def test_scores_with_wilson_intervals() -> None:
    items = pd.DataFrame(
        {"task": ["b"] * 10 + ["a"] * 4, "correct": [True] * 7 + [False] * 3 + [False] * 4}
    )
    table = evaluation.scores(items)
    assert list(table.index) == ["b", "a"]
    assert table["accuracy"].to_dict() == {"b": 0.7, "a": 0.0} and list(table["n"]) == [10, 4]
    low, high = table["low"].tolist(), table["high"].tolist()
    z = 1.959963984540054
    centre = (0.7 + z**2 / 20) / (1 + z**2 / 10)
    half = z / (1 + z**2 / 10) * math.sqrt(0.7 * 0.3 / 10 + z**2 / 400)
    assert (low[0], high[0]) == pytest.approx((centre - half, centre + half))
    assert low[1] == 0.0 and 0 < high[1] < 1
    with pytest.raises(ValueError, match="no items to score"):
        evaluation.scores(items[:0])


# --------------------------------------------------------------------------------- free answers


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Paris is a city.", "en"),
        ("巴黎是首都。", "zh"),
        ("Hà Nội là thủ đô.", "vi"),
        ("đi", "vi"),
        ("Ha Noi", "en"),
        ("猫 cat 狗 dog", "zh"),
        ("the cat 猫 sleeps", "en"),
        ("12, 30!", ""),
        ("", ""),
    ],
)
def test_language_by_script(text: str, language: str) -> None:
    assert evaluation.script_language(text) == language


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        ("Rome.", ["Paris", "Rome", "Lima", "Oslo"], 1),
        ("It is rome, not Paris", ["Paris", "Rome", "Lima", "Oslo"], 1),
        ("Romeo", ["Paris", "Rome", "Lima", "Oslo"], None),
        ("the red fox", ["red", "the red fox", "red fox", "fox"], 1),
        ("红色。", ["红", "蓝", "绿", "红色"], 3),
        ("是巴黎", ["罗马", "巴黎", "利马", "奥斯陆"], 1),
        ("Ha\u0300 No\u0323\u0302i", ["Huế", "Hà Nội", "Đà Nẵng", "Cần Thơ"], 1),
        ("C++ (old)", ["C", "C++", "D", "E"], 1),
        ("", ["a", "b", "c", "d"], None),
    ],
)
def test_option_named_first(text: str, options: list[str], named: int | None) -> None:
    assert evaluation.named_option(text, options) == named


def test_answers_are_sorted_into_kinds(
    prepared: evaluation.Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "en": ["Paris", "Rome", "Nobody", "con trong", "..."],
        "zh": ["巴黎", "罗马", "我不知道", "không biết", ""],
        "vi": ["Pa-ri", "Hà Nội", "con dai", "it is long", "1"],
    }
    kinds = ["gold", "wrong option", "same language", "other language", "nothing"]
    calls: list[list[str]] = []

    def speak(model: Any, tokenizer: Any, prompts: list[str], *_: int) -> list[str]:
        calls.append(prompts)
        return [text for language in ("en", "zh", "vi") for text in said[language]] * 2

    monkeypatch.setattr(evaluation, "_continue", speak)
    described = tuple(  # the same options everywhere, the first one right
        dataclasses.replace(item, options=tuple(PLACES[item.language][:4]), answer=0)
        for item in prepared.described
    )
    fixed = dataclasses.replace(prepared, described=described)
    table = evaluation.answer_instead(MODEL, TOKENIZER, fixed, n_items=5)
    assert list(table["category"]) == kinds * 6
    assert list(table["answer"][:5]) == ["Paris"] * 5 and table["text_language"][3] == "vi"
    # Spread over each task's nine items, and asked with the item's own prompt.
    assert list(table["id"][:5].str[-1]) == ["0", "1", "3", "5", "7"]
    assert calls[0][1] == "Question: Rome 1?\nAnswer:"


def test_continuations_are_greedy_line_by_line() -> None:
    prompts = [line[:cut] for cut in (5, 19, 12, 30) for line in LINES]
    said = evaluation._continue(MODEL, TOKENIZER, prompts, max_new_tokens=6, batch_size=5)
    for prompt, text in zip(prompts, said, strict=True):
        ids = TOKENIZER(prompt)["input_ids"]
        new: list[int] = []
        while len(new) < 6 and 1 not in new:
            logits = MODEL(torch.tensor([ids + new])).logits
            new.append(int(logits[0, -1].argmax()))
        expected = TOKENIZER.decode(new, skip_special_tokens=True).split("\n")[0].strip()
        assert text == expected
    assert len(set(said)) > 3


def test_continuations_end_where_the_model_ends() -> None:
    for text, expected in (("</s>", ""), ("x", "xxxx"), ("\n", "")):
        model = constant_model(TOKENIZER(text)["input_ids"][0])
        assert evaluation._continue(model, TOKENIZER, ["a", "b c d"], 4, 2) == [expected] * 2


def test_bad_free_answers(prepared: evaluation.Prepared) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        evaluation.answer_instead(MODEL, TOKENIZER, prepared, n_items=0, max_new_tokens=4)
    with pytest.raises(ValueError, match="exceed the model's 128 positions"):
        evaluation.answer_instead(MODEL, TOKENIZER, prepared, n_items=1, max_new_tokens=120)


# ---------------------------------------------------------------------------------- perplexity


@pytest.fixture(scope="module")
def windows() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(2, len(TOKENIZER), (7, 11), generator=generator)


@pytest.mark.parametrize("pieces", [1024, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_perplexity_is_the_models_own_loss(
    windows: Tensor, pieces: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_LOGIT_ROWS", pieces)
    result = evaluation.perplexity(MODEL, windows, batch_size)
    with torch.no_grad():
        whole = MODEL(windows, labels=windows).loss
        each = torch.stack([MODEL(row[None], labels=row[None]).loss for row in windows])
    assert result.loss == pytest.approx(whole.item(), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(whole.item()), rel=1e-5)
    torch.testing.assert_close(result.losses, each, rtol=1e-5, atol=1e-5)


def test_perplexity_where_logits_are_more_than_a_product(
    windows: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluation.perplexity(MODEL, windows)
    monkeypatch.setitem(models.FAMILIES, "llama", models.Family(linear_head=False))
    got = evaluation.perplexity(MODEL, windows)
    torch.testing.assert_close(got.losses, expected.losses, rtol=1e-5, atol=1e-5)


def test_bad_windows(windows: Tensor) -> None:
    for wrong in (windows[0], windows[:, :1], windows[:0]):
        with pytest.raises(ValueError, match="expected token windows"):
            evaluation.perplexity(MODEL, wrong)
    with pytest.raises(ValueError, match="made with another tokenizer"):
        evaluation.perplexity(MODEL, windows + len(TOKENIZER))
    broken = make_model()
    torch.nn.init.constant_(broken.model.embed_tokens.weight[windows[2, 3]], torch.nan)
    with pytest.raises(ValueError, match=r"windows have a loss that is not finite"):
        evaluation.perplexity(broken, windows)


# -------------------------------------------------------------------------------- linear layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
def test_faster_linear_layers_are_the_same(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(3)
    layer = torch.nn.Linear(24, 40, bias=bias).to(dtype)
    inputs = torch.randn(2, 5, 24, dtype=dtype)
    expected = F.linear(
        inputs.double(), layer.weight.double(), layer.bias.double() if bias else None
    )
    with evaluation._inference():
        got = layer(inputs)
        assert not got.requires_grad
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    assert layer(inputs).requires_grad  # and nothing is left behind


def test_out_of_memory_runs_smaller_batches(prepared: evaluation.Prepared) -> None:
    windows = torch.randint(
        3, MODEL.config.vocab_size, (10, 20), generator=torch.Generator().manual_seed(0)
    )
    expected = evaluation.evaluate(MODEL, prepared)
    losses = evaluation.perplexity(MODEL, windows).losses
    notes: list[str] = []

    def full(module: torch.nn.Module, args: object, kwargs: dict[str, Tensor]) -> None:
        if len(kwargs["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    handle = MODEL.base_model.register_forward_pre_hook(full, with_kwargs=True)
    try:
        with pytest.warns(UserWarning, match="out of memory with"):
            found = evaluation.evaluate(MODEL, prepared, note=notes.append)
            in_parts = evaluation.perplexity(MODEL, windows, note=notes.append).losses
    finally:
        handle.remove()
    assert found["choice"].equals(expected["choice"])
    columns = [f"logprob_{option}" for option in range(4)]
    assert np.allclose(found[columns], expected[columns], rtol=1e-5, atol=1e-5)
    assert torch.allclose(in_parts, losses, rtol=1e-5)
    assert notes and all("out of memory: at most" in note for note in notes)
