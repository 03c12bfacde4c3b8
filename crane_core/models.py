"""Models and the places CRANE looks at in them (§3.1, §4.1).

A neuron belongs to the MLP of a decoder layer. What differs between model families is only where
those MLPs and the normalisation layers hang in the module tree, so a family is a handful of module
paths in `FAMILIES`, and the rest of the library never asks which model it is given.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Family:
    """Where one model family keeps what CRANE needs; every entry is a module path.

    Attributes
    ----------
    layers : the list of decoder blocks, seen from the model.
    mlp : the gated MLP, seen from a block.
    norms : the RMS normalisations, seen from a block.
    final_norm : the normalisation after the last block, seen from the model.
    linear_head : whether the logits are the output embedding applied to the last hidden state and
        nothing else (no soft cap, no scale). Then single logits can be had without all the others.
    """

    layers: str = "model.layers"
    mlp: str = "mlp"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    final_norm: str = "model.norm"
    linear_head: bool = True


#: One adapter per family, by `config.model_type`.
FAMILIES: dict[str, Family] = {"llama": Family()}


@dataclass(frozen=True, eq=False)
class GatedMLP:
    """The modules of one gated MLP, `down_proj(act_fn(gate_proj(x)) * up_proj(x))`."""

    mlp: nn.Module
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module


def family(model: PreTrainedModel) -> Family:
    """The adapter of `model`'s family.

    Raises ValueError, saying which adapter to write and where, if the family is unknown.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ValueError(
            f"no adapter for the model family {model_type!r} "
            f"(known: {', '.join(sorted(FAMILIES))}). Add FAMILIES[{model_type!r}] = Family(...) "
            "in crane_core/models.py with the paths of its decoder blocks, gated MLPs and RMS "
            "norms; CRANE needs gated MLPs (gate_proj, up_proj, down_proj)."
        )
    return FAMILIES[model_type]


def _submodule(parent: nn.Module, path: str, model: PreTrainedModel) -> nn.Module:
    try:
        return parent.get_submodule(path)
    except AttributeError as error:
        raise ValueError(
            f"a {type(parent).__name__} of this {model.config.model_type!r} model has no module "
            f"{path!r}: the family's adapter in crane_core/models.py does not describe it ({error})"
        ) from error


def _blocks(model: PreTrainedModel) -> list[nn.Module]:
    return list(_submodule(model, family(model).layers, model).children())


def mlp_sites(model: PreTrainedModel) -> list[GatedMLP]:
    """The gated MLP of every layer, first layer first.

    Raises ValueError for an unknown family and for a model whose MLPs are not gated.
    """
    sites = []
    for index, block in enumerate(_blocks(model)):
        mlp = _submodule(block, family(model).mlp, model)
        names = [name for name in GatedMLP.__dataclass_fields__ if name != "mlp"]
        parts: dict[str, Any] = {name: getattr(mlp, name, None) for name in names}
        missing = [name for name, module in parts.items() if not isinstance(module, nn.Module)]
        if missing:
            raise ValueError(
                f"the MLP of layer {index} ({type(mlp).__name__}) is not gated: it has no "
                f"{', '.join(missing)}. CRANE's neurons are defined on "
                "down_proj(act_fn(gate_proj(x)) * up_proj(x)) only."
            )
        sites.append(GatedMLP(mlp, **parts))
    if not sites:
        raise ValueError("the model has no decoder layers, hence no MLP neurons")
    return sites


def norms(model: PreTrainedModel) -> list[nn.Module]:
    """Every RMS normalisation of the model, in the order in which they are run."""
    of = family(model)
    inner = [_submodule(block, path, model) for block in _blocks(model) for path in of.norms]
    return [*inner, _submodule(model, of.final_norm, model)]


def shape(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """The number of (layers, neurons) at each site.

    "intermediate" is what `down_proj` reads; "gate", "up" and "down" are what the three projections
    put out. "intermediate", "gate" and "up" are as wide as the MLP, "down" as the residual stream.
    """
    sites = mlp_sites(model)

    def width(projections: Sequence[nn.Module], dimension: int, name: str) -> tuple[int, int]:
        widths = {int(p.get_parameter("weight").shape[dimension]) for p in projections}
        if len(widths) != 1:
            raise ValueError(
                f"the layers' MLPs differ in width at {name!r} ({sorted(widths)}); "
                "a (layers, neurons) table needs one width"
            )
        return len(projections), widths.pop()

    return {
        "intermediate": width([site.down_proj for site in sites], 1, "intermediate"),
        "gate": width([site.gate_proj for site in sites], 0, "gate"),
        "up": width([site.up_proj for site in sites], 0, "up"),
        "down": width([site.down_proj for site in sites], 0, "down"),
    }


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits of a SHA-256 over names, shapes, types and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: str | os.PathLike[str]) -> Path:
    """Write `SHA256SUMS` for all files of `folder` (`sha256sum -c` reads it too) and return it."""
    folder = Path(folder)
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name != CHECKSUMS)
    target = folder / CHECKSUMS
    draft = folder / f".{CHECKSUMS}.{os.getpid()}"
    draft.write_text("".join(f"{_sha256(f)}  {f.name}\n" for f in files), encoding="utf-8")
    os.replace(draft, target)
    return target


def verify_checksums(folder: str | os.PathLike[str]) -> None:
    """Check every file listed in `folder`'s `SHA256SUMS`.

    Raises FileNotFoundError for a missing file, ValueError for one whose content differs and for a
    line that is no checksum.
    """
    folder = Path(folder)
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        if len(expected) != 64 or not name:
            raise ValueError(f"{folder / CHECKSUMS} has a line that is no checksum: {line!r}")
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, though {CHECKSUMS} lists it; fetch the folder again "
                "(for the testbed: git checkout, or `make testbed`)"
            )
        if _sha256(path) != expected:
            raise ValueError(
                f"{path} is truncated or altered: its SHA-256 is not the one in {CHECKSUMS}; "
                "fetch the folder again (for the testbed: git checkout, or `make testbed`)"
            )


def load(
    path: str | os.PathLike[str],
    dtype: str = "float32",
    device: str = "cpu",
    local_files_only: bool = True,
) -> tuple[PreTrainedModel, Any]:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    path : a folder with a checkpoint, or a name on the Hugging Face hub.
    dtype : name of a torch floating-point type.
    device : where the weights go.
    local_files_only : whether to stay offline (then a hub name is looked for in the local cache).

    Returns
    -------
    The model in evaluation mode, and the tokenizer.

    Only safetensors are read. If the folder holds `SHA256SUMS`, every file it lists is verified
    first. Raises FileNotFoundError if there is no such checkpoint or a file of it is missing, and
    ValueError if its content is truncated, altered or incomplete, or the type is unknown.
    """
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype) or not torch_dtype.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}; use 'float32', 'bfloat16' or 'float16'")
    folder = Path(path)
    if folder.is_dir():
        if (folder / CHECKSUMS).is_file():
            verify_checksums(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no checkpoint: config.json is missing")
        if not any(folder.glob("*.safetensors")):
            raise FileNotFoundError(f"{folder} holds no weights: there is no .safetensors file")

    options: dict[str, Any] = {"local_files_only": local_files_only}
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(path), dtype=torch_dtype, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(str(path), **options)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if folder.is_dir():
            raise ValueError(f"the checkpoint in {folder} cannot be read: {error}") from error
        raise FileNotFoundError(
            f"no model {str(path)!r}: it is no folder here, and "
            + ("not in the local hub cache" if local_files_only else "the hub did not give it")
            + f" ({error})"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    # Transformers would fill what a checkpoint lacks with random numbers and only warn.
    if loading["missing_keys"]:
        raise ValueError(
            f"the checkpoint {str(path)!r} lacks weights: "
            + ", ".join(sorted(loading["missing_keys"]))
        )
    return model.to(device).eval(), tokenizer
