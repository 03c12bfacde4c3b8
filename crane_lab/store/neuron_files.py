"""Sets of neurons for other programs: plain JSON, and several languages in one file of LAPE's.

Our own format, safetensors, is `NeuronSet.save`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from crane_core.files import replacing
from crane_core.neurons import NeuronSet

File = str | os.PathLike[str]


def _require_file(path: File) -> None:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no neuron file at {path}")


def save_json(neurons: NeuronSet, path: File) -> None:
    """Write a set as plain JSON, replacing the file in one step.

    `{"shape": {site: [layers, width]}, "neurons": {site: [[layer, neuron], ...]}}`.
    """
    about = {
        "shape": {site: list(size) for site, size in neurons.shape.items()},
        "neurons": {site: neurons.pairs(site) for site in neurons.sites},
    }
    text = json.dumps(about) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_json(path: File) -> NeuronSet:
    """Read a set in the format of `save_json`.

    Raises FileNotFoundError, or ValueError if the file is no JSON, lacks a part, holds what is no
    whole number, or names a neuron outside its shape.
    """
    _require_file(path)
    try:
        about = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        shape, neurons = dict(about["shape"]), dict(about["neurons"])
        masks = {
            site: NeuronSet.from_pairs(pairs, shape, site).mask(site)
            for site, pairs in neurons.items()
        }
        return NeuronSet(masks, shape)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f'{path} holds no neuron set; expected {{"shape": {{"intermediate": [layers, '
            f'width]}}, "neurons": {{"intermediate": [[layer, neuron], ...]}}}} ({error!r})'
        ) from error


def save_lape_file(sets: Mapping[str, NeuronSet], path: File) -> None:
    """Write sets in LAPE's format in their order, as `NeuronSet.from_lape_file` reads it.

    Raises ValueError if a set has neurons at another site than intermediate.
    """
    content = []
    with tempfile.TemporaryDirectory() as folder:
        for number, neurons in enumerate(sets.values()):
            file = Path(folder) / f"{number}.pth"
            neurons.to_lape_file(file)
            content += torch.load(file, weights_only=True)
    with replacing(path) as temporary:
        torch.save(content, temporary)
