"""What does one pass cost that feeds everything, beside relevance alone? (Algorithm 1 lines 1-16)

Side by side, in turns, so that a busy machine slows all alike:

- `relevance`: relevance at the intermediate units into moments and kurtosis, and nothing else;
- `identification`: everything that identifies neurons, for every method that one pass can serve, in
  that pass (`crane_lab.stages.relevance.readers`): moments and sums of |relevance| at both sites,
  LAPE's counts, the neurons' means;
- `everything`: the same with a sample of tokens for quantiles, and the samples of relevance that
  sorting statistics need;
- `apart`: what `everything` has, each in a pass of its own, as separate loops would run them;
- `act_prob`: `identification`, and the two further passes of Act Prob 90p, whose percentile has to
  be known before it can be exceeded.

    python benchmarks/one_pass.py [--samples 300] [--repetitions 7]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import describe, load_model, machine, parser, texts, write

from crane_core.accumulators import ActiveCounts, Reader, TokenSample, collect
from crane_core.concentration import Collected
from crane_core.families import shape as model_shape
from crane_core.moments import StreamingMoments
from crane_lab.settings import Settings
from crane_lab.stages.relevance import readers
from crane_lab.study.batch_quantiles import BatchQuantiles

TARGETS = {"identification / relevance": 1.10}


def kinds(model: Any, batches: list[torch.Tensor]) -> dict[str, Callable[[], None]]:
    """What is timed, by name."""
    shape = model_shape(model)
    inner = shape["intermediate"]
    samples = sum(len(batch) for batch in batches)
    alone = {"intermediate": Reader("intermediate", lambda: StreamingMoments(inner))}
    identification = readers(shape, Settings(n_samples=samples))
    more = {
        "tokens": Reader("unit", lambda: TokenSample(inner)),
        "samples": Reader("intermediate", lambda: Collected(inner, samples)),
    }
    everything = identification | more

    def passes(*wanted: dict[str, Reader]) -> Callable[[], None]:
        def run() -> None:
            for one in wanted:
                collect(model, batches, one)

        return run

    def act_prob() -> None:
        collect(model, batches, identification)
        bars = collect(model, batches, {"bars": Reader("act_fn", lambda: BatchQuantiles(inner))})
        over = Reader("act_fn", lambda: ActiveCounts(inner, bars["bars"].values()))
        collect(model, batches, {"over": over})

    return {
        "relevance": passes(alone),
        "identification": passes(identification),
        "everything": passes(everything),
        "apart": passes(*({name: reader} for name, reader in everything.items())),
        "act_prob": act_prob,
    }


def main() -> int:
    """Measure, print and write; 1 if a target is missed."""
    options = parser(__doc__, samples=300, window=64, batch_size=50, repetitions=7).parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = load_model(options.random_model)
    batches = list(
        texts(model, tokenizer, options.samples, options.window).split(options.batch_size)
    )
    runs = kinds(model, batches)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(options.repetitions + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repetition:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - start)
    ratios = {
        f"{name} / relevance": [a / b for a, b in zip(own, seconds["relevance"], strict=True)]
        for name, own in seconds.items()
        if name != "relevance"
    }
    result = {
        "machine": machine(options.threads),
        "model": describe(model, tokenizer),
        "samples": options.samples,
        "window": options.window,
        "batch_size": options.batch_size,
        "repetitions": options.repetitions,
        "seconds": {name: round(median(own), 4) for name, own in seconds.items()},
        "ratios": {name: round(median(own), 3) for name, own in ratios.items()},
        "ratios_range": {n: [round(min(r), 3), round(max(r), 3)] for n, r in ratios.items()},
        "targets": TARGETS,
    }
    for name, ratio in result["ratios"].items():
        low, high = result["ratios_range"][name]
        print(f"{name:32} {ratio:.3f}  ({low:.3f} to {high:.3f})")
    print(write("one_pass", result, options.out))
    missed = [name for name, most in TARGETS.items() if result["ratios"][name] > most]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
