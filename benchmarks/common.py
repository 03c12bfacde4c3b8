"""What the benchmarks share: the model, the texts, the machine, and where results go."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from crane_core import models
from crane_lab.store.machine import processor

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "data" / "testbed" / "base"
CORPUS = ROOT / "data" / "testbed" / "corpus" / "attribution"


def parser(
    description: str | None, testbed: bool = True, **defaults: int
) -> argparse.ArgumentParser:
    """Options that all benchmarks have, and one integer option for each default given.

    `testbed` says whether its model is what is measured, and can be left out for a random one.
    """
    options = argparse.ArgumentParser(description=description)
    if testbed:
        options.add_argument("--random-model", action="store_true", help="do not use the testbed")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--out", type=Path, help="folder for the results instead of results/")
    for name, default in defaults.items():
        options.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return options


def load_model(random: bool) -> tuple[Any, Any]:
    """The testbed's base model and tokenizer, or a random Llama of its size and None."""
    if MODEL.is_dir() and not random:
        return models.load(MODEL)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        initializer_range=0.04,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval(), None


def texts(model: Any, tokenizer: Any, n: int, window: int) -> Tensor:
    """`n` token windows (n, window): the testbed's held-out text, a third of it per language."""
    if tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(3, model.config.vocab_size, (n, window), generator=generator)
    from crane_lab.texts import corpora  # needs pandas, which vLLM's environment lacks

    languages = ["en", "zh", "vi"]
    found = corpora.read_windows(tokenizer, CORPUS, languages, -(-n // 3), window, seed=0)
    return torch.stack([found[language] for language in languages], dim=1).flatten(0, 1)[:n]


def machine(
    threads: int, packages: Sequence[str] = ("torch", "transformers", "lxt", "scipy")
) -> dict[str, Any]:
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads_used": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def describe(model: Any, tokenizer: Any) -> dict[str, Any]:
    config = model.config
    return {
        "weights": "random" if tokenizer is None else "data/testbed/base",
        "fingerprint": models.fingerprint(model),
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "vocabulary": config.vocab_size,
    }


def write(name: str, result: dict[str, Any], folder: Path | None) -> Path:
    """Put a result beside the others, named after the machine it came from."""
    info = result["machine"]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{info['processor']} {info['cores']} cores".lower())
    path = (folder or ROOT / "benchmarks" / "results") / f"{name}-{slug.strip('-')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, path)
    return path
