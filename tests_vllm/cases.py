"""What the tests of vLLM ask of a model and do to it."""

import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch

from crane_core.interventions import POSITIONS, Add, Intervention, Scale, SetTo, Step, zero
from crane_core.neurons import NeuronSet
from crane_lab.engines.generation import STOP, Decoding
from crane_lab.engines.vllm_engine import VLLMEngine

TESTBED = Path(__file__).resolve().parent.parent / "data" / "testbed"
DECODING = Decoding(max_new_tokens=64, stop=STOP)
#: Site -> share of its neurons, for each mask that the running engine is given.
MASKS: dict[str, dict[str, float]] = {
    "few": {"intermediate": 0.05},
    "many": {"intermediate": 0.4},
    "gate": {"gate": 0.2},
    "up": {"up": 0.2},
    "down": {"down": 0.05},
    "projections": {"gate": 0.1, "up": 0.1, "down": 0.03},
    "all sites": {"intermediate": 0.1, "gate": 0.1, "up": 0.1, "down": 0.03},
}
#: What is done besides masking, for a model of a shape.
Shape = dict[str, tuple[int, int]]
#: A value for every neuron: site -> (layers, width).
Values = Mapping[str, torch.Tensor]
INTERVENTIONS: dict[str, Callable[[Shape], Intervention]] = {
    "set to a number": lambda s: Intervention(SetTo(few(s), 0.5)),
    "set to values": lambda s: Intervention(SetTo(few(s), numbers(s))),
    "add": lambda s: Intervention(Add(few(s), numbers(s), 1.5)),
    "scale": lambda s: Intervention(Scale(few(s), 4.0)),
    "zero and add": lambda s: zero(few(s)) + Intervention(Add(few(s, 1), numbers(s))),
    "one after the other": lambda s: Intervention(
        SetTo(few(s), numbers(s)), Scale(few(s, 1), 3.0), Add(few(s), 0.5)
    ),
    "at act_fn": lambda s: Intervention(
        SetTo(few(s), 0.0, at="act_fn"),
        Add(few(s, 1), numbers(s), at="act_fn"),
        Scale(few(s, 2), 3.0, at="act_fn"),
    ),
    "projections": lambda s: Intervention(
        SetTo(few(s, site="gate"), numbers(s)),
        Add(few(s, site="up"), numbers(s)),
        Scale(some(s, {"down": 0.05}), 2.0),
    ),
    "at down": lambda s: Intervention(
        Add(some(s, {"down": 0.05}), numbers(s), 0.3), SetTo(some(s, {"down": 0.02}, 1), 0.2)
    ),
    "generated": lambda s: Intervention(Add(few(s), numbers(s), 1.5, positions="generated")),
    "generated at act_fn, and everywhere": lambda s: Intervention(
        Scale(few(s), 5.0, at="act_fn", positions="generated"),
        SetTo(few(s, 1), 0.0, positions="generated"),
        Add(few(s, 2), 0.3),
    ),
}

#: What a step does, with values of the neurons of every site.
KINDS: dict[str, Callable[..., Step]] = {
    "set to a number": lambda neurons, values, **where: SetTo(neurons, 0.5, **where),
    "set to values": lambda neurons, values, **where: SetTo(neurons, values, **where),
    "add": lambda neurons, values, **where: Add(neurons, values, 1.5, **where),
    "scale": lambda neurons, values, **where: Scale(neurons, 3.0, **where),
}
#: Where it is done: the site, and `at`.
PLACES = {
    "unit": ("intermediate", "unit"),
    "act_fn": ("intermediate", "act_fn"),
    **{site: (site, "unit") for site in ("gate", "up", "down")},
}
#: Every kind of step at every place and positions.
STEPS = {
    f"{kind}, {place}, {positions}": (kind, place, positions)
    for place, positions, kind in product(PLACES, POSITIONS, KINDS)
}


def step(name: str, neurons: Mapping[str, NeuronSet], values: Values) -> Step:
    """One of `STEPS` on the `neurons` of its site."""
    kind, place, positions = STEPS[name]
    site, at = PLACES[place]
    return KINDS[kind](neurons[site], values, at=at, positions=positions)


def start(path: Path, decoding: Decoding = DECODING, **options: Any) -> VLLMEngine:
    return VLLMEngine(path, decoding, progress=False, kv_cache_memory_bytes=2**28, **options)


def questions(n: int) -> list[str]:
    """As many in each language, a third of them behind a passage, so of very different lengths."""
    found = []
    for language in ("en", "zh", "vi"):
        for kind, count in (("knowledge", n - n // 3), ("reading", n // 3)):
            lines = (TESTBED / "tasks" / f"{kind}_{language}.jsonl").read_text("utf-8").split("\n")
            items = [json.loads(line) for line in lines[: 5 * count : 5]]
            found += [f"{item['passage']} {item['question']}".strip() for item in items]
    return found


def some(shape: dict[str, tuple[int, int]], shares: dict[str, float], seed: int = 0) -> NeuronSet:
    generator = torch.Generator().manual_seed(seed)
    masks = {s: torch.rand(shape[s], generator=generator) < share for s, share in shares.items()}
    return NeuronSet(masks, shape)


def few(shape: Shape, seed: int = 0, site: str = "intermediate") -> NeuronSet:
    return some(shape, {site: 0.15}, seed)


def numbers(shape: Shape) -> dict[str, torch.Tensor]:
    """A value for every neuron of every site."""
    generator = torch.Generator().manual_seed(7)
    return {site: 0.5 * torch.randn(size, generator=generator) for site, size in shape.items()}
