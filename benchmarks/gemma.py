"""How fast is the method on a real model, and how much memory does it take? (Gemma 3 270M)

18 layers of 2,048 neurons and a vocabulary of 262,144 tokens: what costs little on the testbed,
such as logits, is most of the work here. Windows of `data/texts` open with a token that begins a
sequence, whose own neurons are not scored. Side by side, in turns, so that a busy machine slows
all alike, in float32 and in bfloat16:

- `forward`: the model without logits; `forward_fast` on the linear layers that relevance uses;
- `relevance`: relevance at the intermediate units into `StreamingMoments`, and nothing else;
- `identification`: all that `crane_lab.stages.relevance.readers` collect for every method, in one
  pass; `counts`: LAPE's counts alone, which need no relevance;
- `logits`: a forward pass and one product with the output embedding, nothing made of it;
- `loss`: held-out loss (`crane_lab.engines.perplexity`) with a random hundredth of neurons masked;
- `projections`, in float32: relevance at the projections with the usual recipe's score;
- `recipe`: the usual way to the same numbers: lxt's patched classes, a window at a time, all
  parameters requiring gradients, gradient checkpointing, row sums of weight gradients.

Ratios are medians over the rounds of what two of them took in the same round, by the clock and by
the process's own time. Peak memory is what a fresh process gains over what it held once the model
was loaded. What bfloat16 costs is told on `--fidelity` windows of each language: rank correlations
of mean |relevance| and kurtosis with float32, per layer, and how much of the 300 neurons with the
largest contrast stays.

    python benchmarks/gemma.py [--windows 20] [--repeats 5] [--fidelity 100]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import ROOT, describe, machine, parser, write
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from crane_core import models
from crane_core.accumulators import Reader, collect
from crane_core.attribution import neuron_relevance
from crane_core.concentration import Collected, compute, scores
from crane_core.interventions import intervened, zero
from crane_core.kernels import inference
from crane_core.moments import StreamingMoments
from crane_core.neurons import NeuronSet
from crane_core.windows import token_windows
from crane_lab.engines.perplexity import perplexity
from crane_lab.settings import Settings
from crane_lab.stages.relevance import readers

TEXTS = ROOT / "data" / "texts"
OURS = ("forward", "forward_fast", "relevance", "identification", "counts", "logits", "loss")
#: Whose memory is measured.
HUNGRY = ("forward_fast", "relevance", "identification", "logits", "loss")
DTYPES = ("float32", "bfloat16")
#: (above, below) -> the target.
TARGETS = {
    ("relevance", "forward_fast"): "<= 2.1",
    ("identification", "relevance"): "<= 1.1",
    ("recipe", "relevance"): ">= 5",
    ("recipe", "projections"): ">= 5",
    ("loss", "logits"): "<= 1.15",
}
#: What else is reported.
BESIDES = (
    ("relevance", "forward"),
    ("counts", "forward_fast"),
    *((f"{name} bfloat16", name) for name in ("forward_fast", "relevance", "loss")),
    *((f"{a} bfloat16", f"{b} bfloat16") for a, b in TARGETS if a != "recipe"),
)
#: Neurons whose contrast is the largest, as many as a set may have.
SELECTED = 300


def options() -> argparse.Namespace:
    found = parser(__doc__, testbed=False, windows=20, repeats=5, window=64, fidelity=100)
    found.add_argument("--model", type=Path, default=ROOT / "models" / "gemma-3-270m")
    found.add_argument("--languages", nargs="+", default=["en", "zh", "vi"])
    return found.parse_args()


def windows_of(tokenizer: Any, language: str, n: int, window: int) -> Tensor:
    """`n` token windows (n, window) of a language's texts, each opened by one token."""
    lines = (TEXTS / f"{language}.txt").read_text(encoding="utf-8").splitlines()
    return token_windows(tokenizer, lines, n, window, seed=0, opening="bos")


def windows(tokenizer: Any, args: argparse.Namespace) -> Tensor:
    """The windows that are timed, (windows, window), of all languages in turn."""
    share = -(-args.windows // len(args.languages))
    own = [windows_of(tokenizer, language, share, args.window) for language in args.languages]
    return torch.stack(own, dim=1).flatten(0, 1)[: args.windows]


class Contenders:
    """What is timed, on one model in one type: a method each, which may return what it computed."""

    def __init__(self, model: Any, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        self.shape = models.shape(model)
        self.readers = readers(self.shape, Settings(n_samples=len(ids)))
        draw = torch.rand(self.shape["intermediate"], generator=torch.Generator().manual_seed(0))
        self.mask = zero(NeuronSet({"intermediate": draw < 0.01}, self.shape))

    def collect(self, wanted: dict[str, Reader]) -> None:
        collect(self.model, [self.ids], wanted, opening=1)

    @torch.no_grad()
    def forward(self) -> None:
        self.model.base_model(input_ids=self.ids, use_cache=False)

    @inference()
    def forward_fast(self) -> None:
        self.model.base_model(input_ids=self.ids, use_cache=False)

    def relevance(self) -> None:
        inner = self.shape["intermediate"]
        self.collect({"moments": Reader("intermediate", lambda: StreamingMoments(inner))})

    def identification(self) -> None:
        self.collect(self.readers)

    def counts(self) -> None:
        self.collect({"active": self.readers["active"]})

    @inference()
    def logits(self) -> None:
        states = self.model.base_model(input_ids=self.ids[:, :-1], use_cache=False)
        for part in states.last_hidden_state.flatten(0, 1).split(1024):
            self.model.lm_head(part)

    def loss(self) -> None:
        with intervened(self.model, self.mask):
            perplexity(self.model, self.ids, len(self.ids))

    def projections(self) -> Tensor:
        found = neuron_relevance(
            self.model, self.ids, site="projections", score="weight_gradient_sum"
        )
        return torch.cat([found[name] for name in ("gate", "up", "down")], dim=-1)

    def recipe(self) -> Tensor:
        vectors = []
        for ids in self.ids:
            self.model.zero_grad()
            logits = self.model(input_ids=ids[None], use_cache=False).logits[0]
            logits[:-1].gather(1, ids[1:, None]).sum().backward()
            vectors.append(
                torch.stack(
                    [
                        torch.cat(
                            [
                                getattr(block.mlp, f"{name}_proj").weight.grad.sum(1)
                                for name in ("gate", "up", "down")
                            ]
                        )
                        for block in self.model.model.layers
                    ]
                )
            )
        return torch.stack(vectors)


def resident_mib(what: str) -> float:
    """ "VmRSS", the memory that this process holds, or "VmHWM", the most since `forget_peak`."""
    with open("/proc/self/status", encoding="ascii") as file:
        return int(re.findall(rf"{what}:\s+(\d+) kB", file.read())[0]) / 1024


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def serve(pipe: Connection, args: argparse.Namespace, patched: bool) -> None:
    """Run what is asked for by name; answer seconds by both clocks, MiB gained and the result."""
    torch.set_num_threads(args.threads)
    if patched:
        sys.path.insert(0, str(ROOT / "tests"))  # what the tests compare with is what we race
        import lxt_reference

        lxt_reference.patch()
    known: dict[str, Contenders] = {}
    while (request := pipe.recv()) is not None:
        name, _, dtype = request.partition(" ")
        if dtype not in known:
            model, tokenizer = models.load(args.model, dtype or "float32")
            if patched:
                model.train()
                model.gradient_checkpointing_enable()
            known[dtype] = Contenders(model, windows(tokenizer, args))
        forget_peak()
        before = resident_mib("VmRSS")
        clock, own = time.perf_counter(), time.process_time()
        result = getattr(known[dtype], name)()
        seconds = time.perf_counter() - clock, time.process_time() - own
        pipe.send((*seconds, resident_mib("VmHWM") - before, result))


class Worker:
    """A process that runs contenders by name."""

    def __init__(self, args: argparse.Namespace, patched: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, args, patched))
        self.process.start()
        theirs.close()

    def __call__(self, name: str) -> tuple[float, float, float, Tensor | None]:
        self.pipe.send(name)
        answer: tuple[float, float, float, Tensor | None] = self.pipe.recv()
        return answer

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


def race(args: argparse.Namespace, names: list[str]) -> tuple[dict[str, Any], float]:
    """Seconds of each contender, by the clock and its own, and how far ours is off the recipe's."""
    seconds: dict[str, Any] = {name: {"clock": [], "process": []} for name in names}
    results: dict[str, Tensor | None] = {}
    with closing(Worker(args, False)) as ours, closing(Worker(args, True)) as recipe:
        for repetition in tqdm(range(args.repeats + 1), desc="rounds"):
            for name in names:
                clock, own, _, results[name] = (recipe if name == "recipe" else ours)(name)
                if repetition:  # the first round warms up
                    seconds[name]["clock"].append(clock)
                    seconds[name]["process"].append(own)
    a, b = results["projections"], results["recipe"]
    assert a is not None and b is not None
    return seconds, float((a - b).abs().amax() / b.abs().amax())


def ratios(seconds: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of all pairs: medians over rounds, the rounds' own, and the target if there is one."""
    for above, below in (*TARGETS, *BESIDES):
        rounds = {
            by: [a / b for a, b in zip(seconds[above][by], seconds[below][by], strict=True)]
            for by in ("clock", "process")
        }
        found: dict[str, Any] = {
            "ratio": round(median(rounds["clock"]), 3),
            "ratio_of_process_time": round(median(rounds["process"]), 3),
            "per_round": [round(ratio, 3) for ratio in rounds["clock"]],
        }
        if (above, below) in TARGETS:
            found["target"] = TARGETS[above, below]
        yield f"{above} / {below}", found


def memory(args: argparse.Namespace, names: list[str]) -> dict[str, float]:
    """MiB that a fresh process gains by each contender, at most, once the model is loaded."""
    found = {}
    for name in tqdm(names, desc="memory"):
        with closing(Worker(args, name == "recipe")) as worker:
            found[name] = round(worker(name)[2], 1)
    return found


def fidelity(args: argparse.Namespace) -> dict[str, Any]:
    """What bfloat16 makes of the numbers: {language: medians and lows over layers, overlap}."""
    collected: dict[str, dict[str, Collected]] = {}
    for dtype in DTYPES:
        model, tokenizer = models.load(args.model, dtype)
        inner = models.shape(model)["intermediate"]
        wanted = {"all": Reader("intermediate", lambda inner=inner: Collected(inner, 0))}  # type: ignore[misc]
        collected[dtype] = {
            x: collect(
                model,
                windows_of(tokenizer, x, args.fidelity, args.window).split(args.windows),
                wanted,
                opening=1,
            )["all"]
            for x in tqdm(args.languages, desc=f"relevance in {dtype}")
        }
    statistics = {
        name: {
            dtype: {x: compute(name, c) for x, c in of.items()} for dtype, of in collected.items()
        }
        for name in ("mean_abs", "kurtosis")
    }
    result: dict[str, Any] = {}
    for language in args.languages:
        result[language] = {}
        for name, of in statistics.items():
            exact, rounded = (of[dtype][language] for dtype in DTYPES)
            layers = [float(spearmanr(*pair)[0]) for pair in zip(exact, rounded, strict=True)]
            sets = []
            for dtype in DTYPES:
                contrast = (
                    scores(of[dtype], name, language, contrast=True).flatten().nan_to_num(-1e9)
                )
                sets.append(set(contrast.topk(SELECTED).indices.tolist()))
            result[language][name] = {
                "spearman_median_layer": round(median(layers), 4),
                "spearman_lowest_layer": round(min(layers), 4),
                f"share_of_{SELECTED}_kept": round(len(sets[0] & sets[1]) / SELECTED, 3),
            }
    return result


def main() -> None:
    args = options()
    if not args.model.is_dir():
        sys.exit(f"{args.model} is not there; `make gemma` fetches the model")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    names = [*OURS, "projections", *(f"{name} bfloat16" for name in OURS), "recipe"]
    seconds, difference = race(args, names)
    if difference > 1e-3:
        raise ValueError(f"both ways must give the same relevance; they differ by {difference:.1e}")
    found = dict(ratios(seconds))
    for name, ratio in found.items():
        target = f"  (target {ratio['target']})" if "target" in ratio else ""
        print(f"{name:44} {ratio['ratio']:6.3f} {ratio['ratio_of_process_time']:6.3f}{target}")
    peaks = memory(args, [*HUNGRY, *(f"{name} bfloat16" for name in HUNGRY), "recipe"])
    costs = fidelity(args)
    model, tokenizer = models.load(args.model)
    result = {
        "machine": machine(args.threads),
        "model": describe(model, tokenizer) | {"weights": args.model.name},
        "windows": args.windows,
        "window": args.window,
        "languages": args.languages,
        "repeats": args.repeats,
        "seconds_median": {
            name: {by: round(median(own), 3) for by, own in of.items()}
            for name, of in seconds.items()
        },
        "ratios": found,
        "peak_memory_mib_gained": peaks,
        "largest_difference_from_recipe": difference,
        "bfloat16": {"windows_per_language": args.fidelity, "against_float32": costs},
    }
    print(write("gemma", result, args.out))
    print("peak memory gained, MiB:", peaks)
    print("bfloat16 against float32:", costs)


if __name__ == "__main__":
    main()
