"""What a run will take, before it starts (`crane plan`): work, time, memory, calls to the judge.

Counts are exact where they follow from the parameters. Time is arithmetic: floating-point
operations over what the device does per second, which is *measured* where `benchmarks/results` has
a file of that machine and otherwise *estimated* from the device's peak. Nothing is loaded: the
model is built from its configuration without memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from crane_core import models
from crane_lab.engines.benchmarks import ROW_TOKENS
from crane_lab.engines.generation import read_questions
from crane_lab.engines.judging import PROMPT
from crane_lab.engines.llm_judge import BYTES_PER_TOKEN
from crane_lab.pipeline import TABLES_OF, main_table
from crane_lab.runs.needs import configuration
from crane_lab.settings import Settings
from crane_lab.store import ROOT
from crane_lab.texts.fidelity import untold

#: Name -> peak dense matrix throughput in bfloat16 (float16 for the V100), in 10^12 operations/s,
#: and memory in GiB, from the makers' data sheets.
GPUS = {
    "RTX 3090": (71.0, 24),
    "RTX 4090": (165.0, 24),
    "V100": (125.0, 32),
    "A10": (125.0, 24),
    "L4": (121.0, 24),
    "L40S": (362.0, 48),
    "A100": (312.0, 80),
    "H100": (989.0, 80),
    "H200": (989.0, 141),
}
#: Share of the peak that we expect where nothing was measured: for passes over whole texts, and for
#: generation, which reads all weights for every token.
EFFICIENCY, GENERATION_EFFICIENCY = 0.4, 0.05
#: Relevance against a plain forward pass: forward, and backward to the activations alone.
RELEVANCE_COST = 2.4
#: Items of the harness's benchmarks, and tokens of an item's prompt without examples and of each
#: example (rough means for Llama-2's tokenizer; Chinese and Vietnamese take more).
HARNESS = {
    "mmlu": (14042, 110, 110),
    "ceval-valid": (1346, 130, 130),
    "belebele": (900, 330, 330),
}
#: Tokens of an item of the testbed's tasks, and of an open question: more than there are.
TESTBED_TOKENS = QUESTION_TOKENS = 60
#: Tokens of an item of the multilingual tasks, options without a prompt included.
MULTILINGUAL_TOKENS = {"continuation": 250, "facts": 40}


@dataclass(frozen=True)
class Stage:
    """One kind of work: how many samples, windows, items or answers, and the tokens in them."""

    name: str
    units: int
    tokens: int
    cost: float = 1.0
    generated: bool = False


@dataclass(frozen=True)
class Device:
    """What a device does per second (floating-point operations), and how we know."""

    name: str
    flops: float
    source: str


@dataclass(frozen=True)
class Plan:
    """Stages, sizes and times of a run; `str()` gives the text that `crane plan` prints."""

    settings: Settings
    config: PreTrainedConfig
    parameters: int
    device: Device
    stages: tuple[Stage, ...]
    done: Mapping[str, int]
    prices: tuple[float, float]
    workers: int = 1

    def seconds(self, stage: Stage) -> float:
        """Expected time of a stage: two operations per parameter and token, forward."""
        share = GENERATION_EFFICIENCY / EFFICIENCY if stage.generated else 1.0
        return 2.0 * self.parameters * stage.tokens * stage.cost / (self.device.flops * share)

    def memory(self) -> dict[str, float]:
        """GiB on the device: weights, and what the backward pass of one batch keeps (estimated)."""
        s = self.settings
        size = 4 if s.dtype == "float32" else 2
        text = self.config.get_text_config()
        # Per token and layer: residual stream, norms, queries, keys, values, attention's output and
        # its product (some ten times the hidden size); gate, up, their product and activation.
        kept = 10 * text.hidden_size + 4 * text.intermediate_size
        tokens = s.batch_size * s.window
        return {
            "weights": self.parameters * size / 2**30,
            "activations of a batch": tokens * text.num_hidden_layers * kept * size / 2**30,
        }

    def calls(self) -> tuple[int, int, int]:
        """Judge: calls at most, tokens sent, tokens received at most."""
        answers = sum(stage.units for stage in self.stages if stage.generated)
        prompt = len(PROMPT.encode()) // BYTES_PER_TOKEN
        per_call = prompt + QUESTION_TOKENS + self.settings.max_new_tokens
        return answers, answers * per_call, answers * (self.settings.judge_max_tokens or 0)

    def __str__(self) -> str:
        s, device = self.settings, self.device
        lines = [
            f"model   {s.model}, {self.parameters / 1e9:.3g} billion parameters, {s.dtype}",
            f"device  {device.name}, {device.flops / 1e12:.3g} Tflop/s ({device.source})",
            "",
            f"{'stage':26} {'units':>9} {'tokens':>13}  time",
        ]
        lines += [
            f"{stage.name:26} {stage.units:>9,} {stage.tokens:>13,}  "
            f"{_duration(self.seconds(stage))}"
            + (f", {kept:,} results kept" if (kept := self.done.get(stage.name)) else "")
            for stage in self.stages
        ]
        total = sum(self.seconds(stage) for stage in self.stages)
        lines += ["", f"time    {_duration(total)} in all, from nothing ({device.source})"]
        if self.workers > 1:
            shared = f"        {_duration(total / self.workers)} with {self.workers} workers"
            lines.append(f"{shared}, each on a device of its own (`crane work`)")
        memory = self.memory()
        lines.append(f"memory  {sum(memory.values()):.1f} GiB on the device (estimated):")
        lines.append("        " + ", ".join(f"{name} {size:.1f}" for name, size in memory.items()))
        notes = [f"note    {text}" for text in _notes(s)]
        if s.judge != "llm":
            return "\n".join([*lines, f"judge   {s.judge}, no calls", *notes])
        calls, sent, received = self.calls()
        cost = (sent * self.prices[0] + received * self.prices[1]) / 1e6
        lines += [
            f"judge   {s.judge_model}, at most {calls:,} calls: {sent:,} tokens sent,",
            f"        {received:,} received; at most ${cost:,.0f} at ${self.prices[0]:g} and "
            f"${self.prices[1]:g} a million",
        ]
        if s.judge_max_tokens is None:
            lines.append("        (what the service itself bounds is received besides)")
        if s.judge_requests_per_minute is not None:
            least = calls / s.judge_requests_per_minute * 60
            lines.append(
                f"        at least {_duration(least)} more for judging, at "
                f"{s.judge_requests_per_minute:g} calls a minute"
            )
        return "\n".join([*lines, *notes])


def _notes(s: Settings) -> list[str]:
    """What these settings do to results, and is better known before."""
    notes = []
    if s.dtype != "float32":
        notes.append(
            f"in {s.dtype} an answer may change with the batch it is generated in, and from one "
            "engine or machine to another; in float32 it does not"
        )
    if lacking := untold(s.languages):
        notes.append(
            f"whether answers are in {', '.join(lacking)} cannot be told (py3langid does not know "
            "it): they are judged, but their language is missing in tables"
        )
    return notes


def plan(
    settings: Settings,
    gpu: str | None = None,
    results: Path | None = None,
    prices: tuple[float, float] = (2.5, 10.0),
    kept: Iterable[str] = (),
    workers: int = 1,
    *,
    chat: bool = True,
    literal_reading: bool = True,
) -> Plan:
    """What a run under `settings` takes: Tables 1 to 4 with their controls.

    Parameters
    ----------
    settings : the run's.
    gpu : name of a device in `GPUS`, or of a machine that was measured; None: this machine's.
    results : folder of `benchmarks/`' result files.
    prices : of the judge, dollars per million tokens sent and received.
    kept : the stage of every artefact that the store holds for this run.
    workers : how many share the work (`crane work`).
    chat : whether there is a chat model, and so Tables 3 and 4.
    literal_reading : whether masks of the literal reading of a neuron are evaluated, too.

    Raises ValueError for an unknown device, and FileNotFoundError for a model whose configuration
    cannot be had.
    """
    config = configuration(settings.model, settings.offline)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    parameters = sum(p.numel() for p in model.parameters())
    models.mlp_sites(model)  # refuses what CRANE cannot be run on, before anything is downloaded
    stages = tuple(_stages(settings, chat, literal_reading))
    names = {"collected": "relevance"}
    names |= {"items": "benchmarks, base", "said": "open questions, base"}
    done: dict[str, int] = {}
    for stage in kept:
        if name := names.get(stage):
            done[name] = done.get(name, 0) + 1
    device = find_device(gpu, results)
    if workers < 1:
        raise ValueError(f"workers is {workers}: expected at least 1")
    return Plan(settings, config, parameters, device, stages, done, prices, workers)


def by_device(settings: Settings, gpus: Sequence[str]) -> pd.DataFrame:
    """Hours of the same run on several devices, one row each.

    Returns `device`, `memory (GiB)` of the device, `fits` ("yes" or "no": weights and one batch's
    activations, without vLLM's share), the hours of `relevance`, `benchmarks`, `open questions` and
    `in all`, and `speed`, how we know what the device does per second.
    """
    rows = []
    for gpu in gpus:
        found = plan(settings, gpu)
        hours = {stage.name: found.seconds(stage) / 3600 for stage in found.stages}
        rows.append(
            {
                "device": gpu,
                "memory (GiB)": GPUS[gpu][1],
                "fits": "yes" if sum(found.memory().values()) < GPUS[gpu][1] else "no",
                "relevance": hours["relevance"],
                "benchmarks": sum(h for name, h in hours.items() if "benchmarks" in name),
                "open questions": sum(h for name, h in hours.items() if "open" in name),
                "in all": sum(hours.values()),
                "speed": found.device.source,
            }
        )
    return pd.DataFrame(rows)


def _stages(s: Settings, chat: bool, literal_reading: bool) -> list[Stage]:
    languages, window = len(s.languages), s.window
    samples = (1 + chat) * languages * s.n_samples  # one pass for each model
    # LAPE as released and matched, CRANE, and random masks by seed; without a mask.
    masks = 1 + languages * (3 + len(s.random_seeds))
    projections = literal_reading * languages * (1 + len(s.random_seeds))
    stages = [
        Stage("relevance", samples, samples * window, RELEVANCE_COST),
        Stage(
            "held-out perplexity",
            (masks + projections) * languages * s.n_perplexity,
            (masks + projections) * languages * s.n_perplexity * window,
        ),
    ]
    for name, runs, tables in (
        ("base", masks + projections, s.task_tables or tuple(TABLES_OF[s.benchmarks])),
        ("chat", masks, (main_table(s.benchmarks),)),
    )[: 1 + chat]:
        items, tokens = _items(s, tables)
        stages.append(Stage(f"benchmarks, {name}", runs * items, runs * tokens))
    questions = read_questions(s.questions, s.languages).values()
    asked = sum(min(len(own), s.n_questions or len(own)) for own in questions)
    for name in ("base", "chat")[: 1 + chat]:
        answers = masks * asked
        stages.append(
            Stage(
                f"open questions, {name}",
                answers,
                answers * s.max_new_tokens,
                generated=True,
            )
        )
    return stages


def _items(s: Settings, tables: Sequence[str]) -> tuple[int, int]:
    """Items of the tables' tasks, each once, and the tokens in them."""
    names = {
        name
        for table in tables
        for language, name in TABLES_OF[s.benchmarks][table].items()
        if language in s.languages
    }
    if s.benchmarks != "harness":
        return _own_items(s, names)
    total = tokens = 0
    for name in names:
        n, question, example = next(v for k, v in HARNESS.items() if name.startswith(k))
        n = min(n, s.task_limit or n)
        total += n
        shown = (s.num_fewshot or 0) * example
        together = max(1, (ROW_TOKENS - shown) // question)  # items that share the examples
        tokens += n * question + -(-n // together) * shown
    return total, tokens


def _own_items(s: Settings, names: Collection[str]) -> tuple[int, int]:
    total = tokens = 0
    for name in names:
        path = Path(s.tasks) / f"{name}.jsonl"
        if path.is_file():
            count = sum(1 for line in path.open("rb") if line.strip())
            n = min(count, s.task_limit or count)
            total += n
            tokens += n * MULTILINGUAL_TOKENS.get(name.split("_")[0], TESTBED_TOKENS)
    return total, tokens


def find_device(gpu: str | None, results: Path | None = None) -> Device:
    """What `gpu`, or this machine, does per second.

    Raises ValueError for a name that is neither in `GPUS` nor measured.
    """
    results = results or ROOT / "benchmarks" / "results"
    wanted = gpu
    if wanted is None and torch.cuda.is_available():
        wanted = torch.cuda.get_device_name()
    measured = {}
    for path in sorted(results.glob("attribution*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "forward_flops" in found:
            measured[found["machine"]["processor"]] = float(found["forward_flops"])
        elif "seconds_median" in found:
            operations = 2 * found["model"]["parameters"] * found["samples"] * found["window"]
            seconds = found["seconds_median"]["forward_fast_linear"]
            measured[found["machine"]["processor"]] = operations / seconds
    if wanted is None:
        if not measured:
            raise ValueError(
                "nothing was measured yet; run benchmarks/attribution.py or name a GPU"
            )
        slowest = min(measured, key=lambda name: measured[name])
        return Device(f"a CPU like {slowest}", measured[slowest], "measured there")
    for name, flops in measured.items():
        if same_device(wanted, name):
            return Device(name, flops, "measured")
    for name, (peak, _) in GPUS.items():
        if same_device(name, wanted):
            return Device(name, peak * 1e12 * EFFICIENCY, f"estimated, {EFFICIENCY:.0%} of peak")
    raise ValueError(
        f"unknown device {gpu!r}: neither measured ({', '.join(measured) or 'nothing was'}) nor "
        f"known ({', '.join(GPUS)})"
    )


def same_device(name: str, device: str) -> bool:
    """Say whether a short name is a word, or words, of a device's full name."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", device, re.IGNORECASE) is not None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
