"""Relevance at Llama-2-7B's full shape, in bfloat16: speed, memory, share of the chip's peak.

A random-weight model of the real configuration (`data/configs/Llama-2-7b-hf.json`), samples of 512
tokens, in turns:

- `forward`: a plain forward pass, in batches, without gradients, all logits;
- `crane`: `neuron_relevance` of the same batches into `StreamingMoments`;
- `recipe`: the usual way, one sample at a time, all parameters requiring gradients, gradient
  checkpointing, row sums of the projections' weight gradients (the plain gradient: lxt's patch
  changes classes for good and costs no more).

    python benchmarks/full_shape.py                              # one GPU with 40 GiB or more
    python benchmarks/full_shape.py --layers 2 --width 256 --device cpu --tokens 64   # a trial
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from common import machine, parser, write
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaForCausalLM

from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_lab.cli.plan import GPUS, same_device
from crane_lab.cli.rehearsal import config


def forward(model: Any, batches: list[Tensor]) -> None:
    with torch.inference_mode():
        for ids in batches:
            model(input_ids=ids, use_cache=False)


def crane(model: Any, batches: list[Tensor]) -> None:
    moments: StreamingMoments | None = None
    for ids in batches:
        relevance = neuron_relevance(model, ids)
        moments = moments or StreamingMoments(relevance.shape[1:])
        moments.update(relevance)


def recipe(model: Any, batches: list[Tensor]) -> None:
    model.train()
    model.gradient_checkpointing_enable()
    try:
        for ids in (sample for batch in batches for sample in batch):
            model.zero_grad()
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
            logits[:-1].gather(1, ids[1:, None]).sum().backward()
            for block in model.model.layers:
                for p in (block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj):
                    p.weight.grad.sum(1).cpu()
    finally:
        model.zero_grad()
        model.gradient_checkpointing_disable()
        model.eval()


KINDS: dict[str, Callable[[Any, list[Tensor]], None]] = {
    "forward": forward,
    "crane": crane,
    "recipe": recipe,
}


def main() -> None:
    options = parser(__doc__, samples=64, batch=8, tokens=512, repetitions=5, layers=32, width=4096)
    options.add_argument("--device", default="cuda")
    options.add_argument("--dtype", default="bfloat16")
    options.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, args.dtype))
    with torch.device(args.device):
        model = LlamaForCausalLM(config(args.layers, args.width)).eval()
    torch.set_default_dtype(torch.float32)
    ids = torch.randint(3, model.config.vocab_size, (args.samples, args.tokens))
    batches = list(ids.to(args.device).split(args.batch))

    def timed(kind: str) -> tuple[float, float]:
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        KINDS[kind](model, batches)
        if cuda:
            torch.cuda.synchronize()
        memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")
        return time.perf_counter() - start, memory

    seconds: dict[str, list[float]] = {kind: [] for kind in args.kinds}
    peak_memory: dict[str, float] = {}
    for repetition in tqdm(range(args.repetitions + 1), desc="rounds"):
        for kind in args.kinds:
            elapsed, memory = timed(kind)
            if repetition:  # the first round warms up
                seconds[kind].append(elapsed)
                peak_memory[kind] = round(memory, 2)
    medians = {kind: median(values) for kind, values in seconds.items()}
    # Two operations per weight of a matrix and token, and attention's two products.
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2)
    matrices -= model.get_input_embeddings().weight.numel()
    attention = 2 * args.layers * args.tokens * args.width
    operations = 2.0 * (matrices + attention) * ids.numel()
    about = machine(args.threads)
    peak = None
    if cuda:
        about["processor"] = torch.cuda.get_device_name()
        about["cuda"] = torch.version.cuda
        peak = next(
            (p for name, (p, _) in GPUS.items() if same_device(name, about["processor"])), None
        )
    result = {
        "machine": about,
        "model": {"layers": args.layers, "hidden_size": args.width, "dtype": args.dtype},
        "samples": args.samples,
        "tokens": args.tokens,
        "batch": args.batch,
        "repetitions": args.repetitions,
        "seconds_median": {kind: round(value, 4) for kind, value in medians.items()},
        "seconds": {kind: [round(v, 4) for v in values] for kind, values in seconds.items()},
        "samples_per_second": {k: round(args.samples / v, 3) for k, v in medians.items()},
        "peak_memory_gib": peak_memory,
    }
    if "forward" in medians:
        result["forward_flops"] = operations / medians["forward"]
        if "crane" in medians:
            result["crane / forward"] = round(medians["crane"] / medians["forward"], 3)
            result["target"] = "<= 2.6"
    if {"crane", "recipe"} <= set(medians):
        result["recipe / crane"] = round(medians["recipe"] / medians["crane"], 3)
    if peak:
        # Relevance is a forward pass without most logits and a backward pass to activations alone:
        # twice a forward pass's operations, less the logits.
        logits = 2.0 * model.config.vocab_size * args.width * ids.numel()
        done = {"forward": operations, "crane": 2 * (operations - logits)}
        result["share_of_peak"] = {
            kind: round(done[kind] / medians[kind] / (peak * 1e12), 3)
            for kind in done
            if kind in medians
        }
        result["share_of_peak_target"] = ">= 0.4"
    print(write("attribution-full-shape", result, args.out))
    for name in ("samples_per_second", "crane / forward", "recipe / crane", "share_of_peak"):
        print(name, result.get(name))
    print("peak memory, GiB:", peak_memory)


if __name__ == "__main__":
    main()
