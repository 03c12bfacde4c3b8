"""Sets of neurons in formats that other programs read and write: plain JSON, and LAPE's.

Our own, safetensors, is `NeuronSet.save`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from crane_core.files import replacing
from crane_core.neurons import NeuronSet, Shape, as_shape, listed

#: The order of the seven languages in the files released by LAPE (Tang et al., 2024).
LAPE_LANGUAGES = ("en", "zh", "fr", "es", "vi", "id", "ja")

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


def save_lape_file(sets: Iterable[NeuronSet], path: File) -> None:
    """Write sets in LAPE's format, a list [language][layer] of LongTensors, in the order given.

    The format knows intermediate neurons only: ValueError if a set has neurons at another site.
    """
    content = []
    for neurons in sets:
        if others := set(neurons.sites) - {"intermediate"}:
            raise ValueError(
                f"LAPE's format holds intermediate neurons only, this set has some at "
                f"{listed(sorted(others))}: use NeuronSet.save"
            )
        content.append([row.nonzero().reshape(-1) for row in neurons.mask()])
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_lape_file(
    path: File, shape: Shape | Sequence[int], languages: Sequence[str] = LAPE_LANGUAGES
) -> dict[str, NeuronSet]:
    """Read one set per language in LAPE's format, a list [language][layer] of LongTensors.

    Parameters
    ----------
    path : a file written by LAPE's code or by `save_lape_file`; read without unpickling code.
    shape : the model's shape, which the format does not record.
    languages : the codes of the file's languages, in their order.

    Raises FileNotFoundError, or ValueError for another format, another number of languages or
    layers, or an index that lies outside the model.
    """
    _require_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file it cannot read
        raise ValueError(f"{path} is no file that torch.load can read safely: {error}") from error
    if not isinstance(content, list) or not all(
        isinstance(layers, list)
        and all(isinstance(t, Tensor) and t.dtype == torch.long for t in layers)
        for layers in content
    ):
        raise ValueError(f"{path} is not in LAPE's format: a list [language][layer] of LongTensor")
    if len(languages) != len(content):
        raise ValueError(
            f"{path} holds {len(content)} languages, but {len(languages)} codes were given "
            f"({listed(languages)})"
        )
    depth = as_shape(shape)["intermediate"][0]
    found = {}
    for language, layers in zip(languages, content, strict=True):
        if len(layers) != depth:
            raise ValueError(f"{path} holds {len(layers)} layers, but the model has {depth}")
        pairs = ((i, j) for i, row in enumerate(layers) for j in row.reshape(-1).tolist())
        found[language] = NeuronSet.from_pairs(pairs, shape)
    return found
