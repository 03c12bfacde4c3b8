"""Multiple-choice tasks made up for tests, a tokenizer and models for them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as token_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from crane_lab.engines.multiple_choice import Prepared, prepare
from crane_lab.engines.shared_context import SharedContextLM
from crane_lab.engines.tasks import FOLDER, TASKS, Tasks, load_tasks

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
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("*.jsonl"))
    for task in TASKS:
        write_items(copy, task, [make_item(task, index) for index in range(N_ITEMS)])
    return copy


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    copy = tmp_path_factory.mktemp("shared") / "tasks"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("*.jsonl"))
    for task in TASKS:
        write_items(copy, task, [make_item(task, index) for index in range(N_ITEMS)])
    return load_tasks(folder=copy)


@pytest.fixture(scope="module")
def prepared(tasks: Tasks) -> Prepared:
    return prepare(MODEL, TOKENIZER, tasks)


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
    ours = SharedContextLM(model, tokenizer, **options)
    expected = theirs.loglikelihood(requests(pairs), disable_tqdm=True)
    got = ours.loglikelihood(requests(pairs), disable_tqdm=True)
    torch.testing.assert_close(
        torch.tensor([logprob for logprob, _ in got]),
        torch.tensor([logprob for logprob, _ in expected]),
        rtol=1e-5,
        atol=1e-5,
    )
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]
