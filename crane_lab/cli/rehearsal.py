"""A rehearsal of the paper's setting: every stage on real shapes and formats, without the hub.

    crane rehearse [--layers 2] [--width 4096]

What a run under the profile `paper` touches is made here: a model with Llama-2-7B's configuration
cut to a few layers, with random weights, base and chat; a tokenizer with Llama's special tokens and
chat format; the benchmarks in the hub's schema, filled from the testbed's tasks; a judge behind a
local address. Its numbers mean nothing: it shows that everything runs.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from crane_lab.engines.benchmarks import subjects
from crane_lab.store import ROOT, atomic_path
from crane_lab.texts.languages import FLORES
from crane_lab.texts.local import read_texts

LANGUAGES = ("en", "zh", "vi")
TESTBED = ROOT / "data" / "testbed"
CONFIG = ROOT / "data" / "configs" / "Llama-2-7b-hf.json"
PORT = 8765
SPECIAL = ("<unk>", "<s>", "</s>")

#: Llama 2's chat format.
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def config(layers: int, width: int) -> LlamaConfig:
    """Llama-2-7B's configuration with `layers` layers, scaled to a hidden size of `width`.

    Heads keep their 128 dimensions where the width allows. Raises ValueError for a width that is
    not a multiple of 64 up to the real one.
    """
    real = json.loads(CONFIG.read_text(encoding="utf-8"))
    if layers < 1 or not 64 <= width <= real["hidden_size"] or width % 64:
        raise ValueError(
            f"layers is {layers}, width {width}: expected at least one layer, and a multiple of 64 "
            f"up to {real['hidden_size']}"
        )
    heads = max(2, width // 128)
    real.update(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=real["intermediate_size"] * width // real["hidden_size"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )
    real.pop("model_type")
    return LlamaConfig(**real)


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama's is made, trained on the testbed's text in a few seconds.

    Byte-fallback BPE with `▁` for spaces, `<unk>`, `<s>` and `</s>` as tokens 0 to 2, a beginning
    of sequence before every text, and no padding token.
    """
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learnt = Tokenizer(BPE())
    learnt.normalizer = normalizer
    texts = (
        word
        for x in LANGUAGES
        for text in read_texts(TESTBED / "corpus" / "attribution", x)[:1000]
        for word in text.split(" ")  # BPE does not merge over words' ends
    )
    trainer = BpeTrainer(vocab_size=4000, max_token_length=12, show_progress=False)
    learnt.train_from_iterator(texts, trainer)
    found = json.loads(learnt.to_str())["model"]
    # Bytes are ordinary tokens, which the trainer cannot be told.
    first = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = dict.fromkeys([*first, *sorted(found["vocab"], key=found["vocab"].get)])
    model = Tokenizer(
        BPE(
            {token: number for number, token in enumerate(vocabulary)},
            [tuple(pair) for pair in found["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    model.normalizer = normalizer
    model.add_special_tokens(list(SPECIAL))
    model.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    model.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=model, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_rehearsal(
    folder: Path, layers: int = 2, width: int = 256, dtype: str = "float32"
) -> Path:
    """Make models, tokenizer and benchmarks in `folder/<what they depend on>`, and return it.

    What is there already is left alone; it appears under its name when it is complete.
    """
    made_from = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    target = folder / f"{layers}-layers-{width}-wide-{dtype}-{made_from}"
    if target.is_dir():
        return target
    with atomic_path(target) as draft:
        of = config(layers, width)
        words = tokenizer()
        for seed, name in enumerate(("base", "chat")):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(of).to(getattr(torch, dtype))
            model.save_pretrained(draft / name)
            words.save_pretrained(draft / name)
            del model
        write_benchmarks(draft / "benchmarks")
    return target


# ------------------------------------------------------------------ benchmarks in the hub's schema


def write_benchmarks(folder: Path) -> None:
    """MMLU, C-Eval and Belebele in the hub's layout and schema, with the testbed's items in them.

    Every subject has two items to test on and five examples.
    """
    en, zh = (_items(f"knowledge_{x}") for x in ("en", "zh"))
    mmlu, ceval = {}, {}
    for number, subject in enumerate(subjects("mmlu")):
        rows = [
            {
                "question": item["question"],
                "subject": subject,
                "choices": item["options"],
                "answer": item["answer"],
            }
            for item in _seven(en, number)
        ]
        mmlu[subject] = {"dev": rows[:5], "test": rows[5:]}
    for number, subject in enumerate(subjects("ceval-valid")):
        rows = [
            {
                "id": index,
                "question": item["question"],
                **dict(zip("ABCD", item["options"], strict=True)),
                "answer": "ABCD"[item["answer"]],
                "explanation": "",
            }
            for index, item in enumerate(_seven(zh, number))
        ]
        ceval[subject] = {"dev": rows[:5], "val": rows[5:]}
    belebele = {
        FLORES[x]: {
            "test": [
                {
                    "link": f"https://example.org/{index // 2}",
                    "question_number": index % 2 + 1,
                    "flores_passage": item["passage"],
                    "question": item["question"],
                    **{f"mc_answer{i + 1}": option for i, option in enumerate(item["options"])},
                    "correct_answer_num": str(item["answer"] + 1),
                    "dialect": FLORES[x],
                    "ds": "2023-05-03",
                }
                for index, item in enumerate(_items(f"reading_{x}")[:20])
            ]
        }
        for x in LANGUAGES
    }
    _write(folder / "cais" / "mmlu", mmlu)
    _write(folder / "ceval" / "ceval-exam", ceval)
    _write(folder / "facebook" / "belebele", belebele)


def _items(task: str) -> list[dict[str, Any]]:
    with (TESTBED / "tasks" / f"{task}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _seven(items: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [items[(7 * number + index) % len(items)] for index in range(7)]


def _write(folder: Path, configs: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> None:
    """Write a data set as the hub keeps it: a file per split, and a card that names them."""
    card: list[dict[str, Any]] = []
    for config, splits in configs.items():
        files = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
        card.append({"config_name": config, "data_files": files})
        (folder / config).mkdir(parents=True)
        for split, rows in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            pd.DataFrame(rows).to_parquet(path, index=False)
    text = yaml.safe_dump({"configs": card}, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{text}---\nMade up for a rehearsal.\n", "utf-8")


# -------------------------------------------------------------------------------------- the judge


class _Judge(BaseHTTPRequestHandler):
    """Speaks as much of the chat-completions protocol as a judge needs; its grades mean nothing."""

    def do_POST(self) -> None:
        """Grade: a number from 1 to 10 that depends on the prompt alone."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        prompt = json.loads(body)["messages"][-1]["content"]
        score = hashlib.sha256(prompt.encode()).digest()[0] % 10 + 1
        content = json.dumps({"reason": "a rehearsal", "score": score})
        answer = {
            "id": "rehearsal",
            "object": "chat.completion",
            "created": 0,
            "model": "rehearsal",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def judge_server(port: int = PORT) -> Iterator[str]:
    """A judge at a local address, yielded, while the block lasts.

    The port is always the same, so that nothing is computed again, unless it is taken.
    """
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _Judge)
    except OSError:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Judge)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
