"""What does a mask cost? A masked against an unmasked evaluation (§3.4).

In turns, entering and leaving the mask included: the model as it is, with a random share of its
neurons zeroed (in the weights), and with the same neurons set to another value (by hooks). With
the testbed the evaluation is that of its tasks through lm-eval, otherwise perplexity.

    python benchmarks/masking.py [--items 200] [--repetitions 9] [--percent 10]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import torch
from common import describe, load_model, machine, parser, texts, write
from tqdm import tqdm

from crane_core import models
from crane_core.masking import masked
from crane_core.selection import NeuronSet
from crane_lab.engines.multiple_choice import evaluate, prepare
from crane_lab.engines.perplexity import perplexity
from crane_lab.engines.tasks import load_tasks

TARGETS = {"zero": 1.03}


def main() -> None:
    args = parser(__doc__, items=200, repetitions=9, percent=10).parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = load_model(args.random_model)
    if tokenizer is None:
        windows = texts(model, None, args.items, 128)

        def evaluation() -> Any:
            return perplexity(model, windows).losses
    else:
        prepared = prepare(model, tokenizer, load_tasks(limit=args.items))

        def evaluation() -> Any:
            return evaluate(model, prepared)

    shape = models.shape(model)
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(shape["intermediate"], generator=generator) < args.percent / 100
    neurons = NeuronSet({"intermediate": draw}, shape)
    kinds: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "unmasked": nullcontext,
        "zero": lambda: masked(model, neurons),
        "other_value": lambda: masked(model, neurons, 0.01),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for repetition in tqdm(range(args.repetitions + 1), desc="rounds"):
        for kind, context in kinds.items():
            start = time.perf_counter()
            with context():
                evaluation()
            if repetition:  # the first round warms up
                seconds[kind].append(time.perf_counter() - start)

    medians = {kind: median(values) for kind, values in seconds.items()}
    ratios = {
        kind: {
            "ratio": round(medians[kind] / medians["unmasked"], 4),
            "per_round": [
                round(a / b, 4) for a, b in zip(seconds[kind], seconds["unmasked"], strict=True)
            ],
            **({"target": f"<= {TARGETS[kind]}"} if kind in TARGETS else {}),
        }
        for kind in ("zero", "other_value")
    }
    result = {
        "machine": machine(args.threads),
        "model": describe(model, tokenizer),
        "evaluation": "perplexity of random windows" if tokenizer is None else "the six tasks",
        "items_per_task": args.items,
        "neurons_masked": len(neurons),
        "repetitions": args.repetitions,
        "seconds_median": {kind: round(value, 4) for kind, value in medians.items()},
        "seconds": {kind: [round(v, 4) for v in values] for kind, values in seconds.items()},
        "ratios": ratios,
    }
    print(write("masking", result, args.out))
    for kind, ratio in ratios.items():
        print(
            f"{kind}: {ratio['ratio']}", f"(target {ratio['target']})" if "target" in ratio else ""
        )


if __name__ == "__main__":
    main()
