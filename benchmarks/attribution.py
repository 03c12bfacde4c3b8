"""How fast is relevance, and how much memory does it take? (§3.2, Algorithm 1 lines 1-11)

Side by side, in turns, so that a busy machine slows all alike:

- `forward`: a plain forward pass over the texts, in batches, without gradients;
- `forward_fast_linear`: the same with the linear layers that `neuron_relevance` uses;
- `crane`: `neuron_relevance` of the same batches into `StreamingMoments`, and their kurtosis;
- `crane_projections`: the same for the site `projections` with the usual recipe's score, that is
  the numbers the recipe computes;
- `recipe`: the usual way: lxt's patched classes, one sample at a time, all parameters requiring
  gradients, gradient checkpointing, the row sums of the projections' weight gradients kept for
  every sample and given to `scipy.stats.kurtosis`.

Each runs in a process of its own, because lxt's patch is class-wide. Peak memory is that of a fresh
process for each number of samples, less what it had before the first one, on windows of 16 tokens
(the window sets the level, the number of samples the growth).

    python benchmarks/attribution.py [--samples 96] [--repetitions 7] [--quick]
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
import torch
from common import ROOT, describe, load_model, machine, parser, texts, write
from numpy.typing import NDArray
from scipy.stats import kurtosis
from torch import Tensor
from tqdm import tqdm

from crane_core.attribution import neuron_relevance
from crane_core.kernels import fast_linear
from crane_core.moments import StreamingMoments

KINDS = ("forward", "forward_fast_linear", "crane", "crane_projections", "recipe")
TARGETS = {
    "crane / forward": 2.4,
    "crane / forward_fast_linear": 2.4,
    "recipe / crane": 5.0,
    "recipe / crane_projections": 5.0,
}

Kurtosis = NDArray[np.float64] | None


def run_forward(model: Any, batches: list[Tensor]) -> Kurtosis:
    with torch.inference_mode():
        for ids in batches:
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return None


def run_forward_fast_linear(model: Any, batches: list[Tensor]) -> Kurtosis:
    with fast_linear():
        return run_forward(model, batches)


def run_crane(model: Any, batches: list[Tensor]) -> Kurtosis:
    moments: StreamingMoments | None = None
    for ids in batches:
        relevance = neuron_relevance(model, ids, torch.ones_like(ids))
        moments = moments or StreamingMoments(relevance.shape[1:])
        moments.update(relevance)
    assert moments is not None
    return moments.kurtosis().numpy()


def run_crane_projections(model: Any, batches: list[Tensor]) -> Kurtosis:
    moments: StreamingMoments | None = None
    for ids in batches:
        found = neuron_relevance(
            model, ids, torch.ones_like(ids), site="projections", score="weight_gradient_sum"
        )
        relevance = torch.cat([found[name] for name in ("gate", "up", "down")], dim=-1)
        moments = moments or StreamingMoments(relevance.shape[1:])
        moments.update(relevance)
    assert moments is not None
    return moments.kurtosis().numpy()


def run_recipe(model: Any, batches: list[Tensor]) -> Kurtosis:
    vectors = []
    for ids in (sample for batch in batches for sample in batch):
        model.zero_grad()
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        logits[:-1].gather(1, ids[1:, None]).sum().backward()
        layers = [
            torch.cat(
                [p.weight.grad.sum(1) for p in (block.mlp.gate_proj, block.mlp.up_proj)]
                + [block.mlp.down_proj.weight.grad.sum(1)]
            )
            for block in model.model.layers
        ]
        vectors.append(torch.stack(layers).numpy())
    result: NDArray[np.float64] = kurtosis(
        np.stack(vectors).astype(np.float64), axis=0, fisher=False
    )
    return result


RUN: dict[str, Callable[[Any, list[Tensor]], Kurtosis]] = {
    "forward": run_forward,
    "forward_fast_linear": run_forward_fast_linear,
    "crane": run_crane,
    "crane_projections": run_crane_projections,
    "recipe": run_recipe,
}


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def serve(kind: str, pipe: Connection, random: bool, threads: int) -> None:
    """Answer (samples, window, batch) with seconds, peak memory gained and kurtosis."""
    torch.set_num_threads(threads)
    if kind == "recipe":
        sys.path.insert(0, str(ROOT / "tests"))  # what the tests compare with is what we race
        import lxt_reference

        lxt_reference.patch()
    model, tokenizer = load_model(random)
    if kind == "recipe":
        model.train()
        model.gradient_checkpointing_enable()
    pipe.send(None)
    while (request := pipe.recv()) is not None:
        samples, window, batch = request
        batches = list(texts(model, tokenizer, samples, window).split(batch))
        before = resident_mib()
        start = time.perf_counter()
        result = RUN[kind](model, batches)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((seconds, peak - before, result))


class Worker:
    """A process that runs one kind, ready when constructed."""

    def __init__(self, kind: str, random: bool, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(kind, theirs, random, threads))
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def __call__(self, samples: int, window: int, batch: int) -> tuple[float, float, Kurtosis]:
        self.pipe.send((samples, window, batch))
        answer: tuple[float, float, Kurtosis] = self.pipe.recv()
        return answer

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


def main() -> None:
    options = parser(__doc__, samples=96, window=128, batch=16, repetitions=7, most_samples=4000)
    options.add_argument("--quick", action="store_true", help="a small check, not a measurement")
    args = options.parse_args()
    if args.quick:
        args.samples, args.repetitions, args.most_samples = 24, 2, 800
    os.environ["OMP_NUM_THREADS"] = str(args.threads)

    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    results: dict[str, Kurtosis] = {}
    workers = {kind: Worker(kind, args.random_model, args.threads) for kind in KINDS}
    for repetition in tqdm(range(args.repetitions + 1), desc="rounds"):
        for kind, worker in workers.items():
            elapsed, _, results[kind] = worker(args.samples, args.window, args.batch)
            if repetition:  # the first round warms up
                seconds[kind].append(elapsed)
    for worker in workers.values():
        worker.close()

    ours, theirs = results["crane_projections"], results["recipe"]
    assert ours is not None and theirs is not None
    difference = float(np.nanmax(np.abs(ours / theirs - 1)))
    if difference > 1e-3:
        raise ValueError(f"both ways must give the same kurtosis; they differ by {difference:.1e}")

    memory: dict[str, dict[int, float]] = {kind: {} for kind in KINDS[2:]}
    sizes = [args.most_samples // share for share in (8, 4, 2, 1)]
    for kind, size in tqdm([(k, s) for k in memory for s in sizes], desc="memory"):
        worker = Worker(kind, args.random_model, args.threads)
        memory[kind][size] = round(worker(size, 16, args.batch)[1], 1)
        worker.close()

    model, tokenizer = load_model(args.random_model)
    medians = {kind: median(values) for kind, values in seconds.items()}
    ratios = {}
    for name, target in TARGETS.items():
        above, below = name.split(" / ")
        each = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
        ratios[name] = {
            "ratio": round(medians[above] / medians[below], 3),
            "per_round": [round(value, 3) for value in each],
            "target": f"{'>=' if above == 'recipe' else '<='} {target}",
        }
    result = {
        "machine": machine(args.threads),
        "model": describe(model, tokenizer),
        "samples": args.samples,
        "window": args.window,
        "batch": args.batch,
        "repetitions": args.repetitions,
        "seconds_median": {kind: round(value, 4) for kind, value in medians.items()},
        "seconds": {kind: [round(v, 4) for v in values] for kind, values in seconds.items()},
        "ratios": ratios,
        "peak_memory_mib_by_samples": memory,
        "kurtosis_largest_relative_difference": difference,
    }
    print(write("attribution", result, args.out))
    for name, ratio in ratios.items():
        print(f"{name}: {ratio['ratio']} (target {ratio['target']})")
    print("peak memory gained, MiB by samples:", memory)


if __name__ == "__main__":
    main()
