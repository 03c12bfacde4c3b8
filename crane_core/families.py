"""The places CRANE looks at in a model (§4.1), one small adapter per family.

A neuron belongs to the MLP of a decoder layer. What differs between model families is only where
those MLPs and the normalisation layers hang in the module tree, so a family is a handful of module
paths in `FAMILIES`, and the rest of the library never asks which model it is given.

What families vary beyond that is read off the model itself: the activation function is the MLP's
`act_fn`, biases are the projections', soft caps and sliding windows are in the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

#: What to do about weights whose rows and columns cannot be told apart.
UNQUANTISED = (
    "load the unquantised checkpoint instead (dtype 'bfloat16' takes half the memory of 'float32')"
)


@dataclass(frozen=True)
class Family:
    """Where one model family keeps what CRANE needs, as module paths.

    Attributes
    ----------
    layers : the list of decoder blocks, seen from the model.
    mlp : the gated MLP, seen from a block.
    norms : all RMS normalisations of a block, in the order in which they are run.
    stream_norms : those of them that read the residual stream, before attention and before the MLP.
    mlp_output_norm : the one between the MLP and the residual stream, if there is one.
    final_norm : the normalisation after the last block, seen from the model.
    norm_kind : "llama", weight * x / rms in the class's `forward`, or "gemma", (1 + weight) * x /
        rms with the division in the class's `_norm`.
    linear_head : whether the logits are the output embedding applied to the last hidden state and
        nothing else. Then single logits can be had without all the others. `family` says False for
        a model that has a soft cap on its logits, whatever stands here.
    """

    layers: str = "model.layers"
    mlp: str = "mlp"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    stream_norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    mlp_output_norm: str | None = None
    final_norm: str = "model.norm"
    norm_kind: Literal["llama", "gemma"] = "llama"
    linear_head: bool = True


_QUERY_KEY_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_GEMMA2 = Family(
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    stream_norms=("input_layernorm", "pre_feedforward_layernorm"),
    mlp_output_norm="post_feedforward_layernorm",
    norm_kind="gemma",
)
_GEMMA3 = replace(_GEMMA2, norms=(_GEMMA2.norms[0], *_QUERY_KEY_NORMS, *_GEMMA2.norms[1:]))

#: One adapter per family, by `config.model_type`. "gemma3" is the checkpoint with a vision tower,
#: which text never passes through; "gemma3_text" is the one without.
FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(),
    "qwen3": Family(
        norms=("input_layernorm", *_QUERY_KEY_NORMS, "post_attention_layernorm"),
    ),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma3": replace(
        _GEMMA3, layers="model.language_model.layers", final_norm="model.language_model.norm"
    ),
}


@dataclass(frozen=True, eq=False)
class GatedMLP:
    """The modules of one gated MLP, `down_proj(act_fn(gate_proj(x)) * up_proj(x))`."""

    mlp: nn.Module
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module


def adapter(model_type: str) -> Family:
    """The adapter of the family that `config.model_type` names.

    Raises ValueError, saying which adapter to write and where, if the family is unknown.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"no adapter for the model family {model_type!r} "
            f"(known: {', '.join(sorted(FAMILIES))}). Add FAMILIES[{model_type!r}] = Family(...) "
            "in crane_core/families.py with the paths of its decoder blocks, gated MLPs and RMS "
            "norms, and a small model of it to SPECIFIC in tests/conftest.py, to test it. CRANE "
            "needs gated MLPs (gate_proj, up_proj, down_proj)."
        )
    return FAMILIES[model_type]


def family(model: PreTrainedModel) -> Family:
    """The adapter of `model`'s family, with what the model's configuration changes of it.

    Raises ValueError as `adapter` does.
    """
    found = adapter(model.config.model_type)
    return replace(found, linear_head=False) if caps_logits(model) else found


def caps_logits(model: PreTrainedModel) -> bool:
    """Whether the model's logits are c * tanh(x / c) of what its output embedding gives."""
    return getattr(model.config, "final_logit_softcapping", None) is not None


def caps_attention(config: PreTrainedConfig) -> bool:
    """Whether attention scores are soft-capped, which of transformers' kernels few can do.

    Eager attention does it. Scaled dot product attention leaves it out without a word, which is
    another model; so `load` chooses eager attention then.
    """
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def _submodule(parent: nn.Module, path: str, model: PreTrainedModel) -> nn.Module:
    try:
        return parent.get_submodule(path)
    except AttributeError as error:
        raise ValueError(
            f"a {type(parent).__name__} of this {model.config.model_type!r} model has no module "
            f"{path!r}: the family's adapter in crane_core/families.py does not describe it "
            f"({error})"
        ) from error


def decoder(model: PreTrainedModel) -> PreTrainedModel:
    """The part of the model that text passes through; holds the decoder blocks."""
    return cast(PreTrainedModel, _submodule(model, family(model).layers.rpartition(".")[0], model))


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
    return _norms(model, family(model).norms)


def stream_norms(model: PreTrainedModel) -> list[nn.Module]:
    """The RMS normalisations that read the residual stream, in the order in which they are run.

    Each layer has two, before attention and before the MLP; the final norm is the last.
    """
    return _norms(model, family(model).stream_norms)


def _norms(model: PreTrainedModel, paths: Sequence[str]) -> list[nn.Module]:
    inner = [_submodule(block, path, model) for block in _blocks(model) for path in paths]
    return [*inner, _submodule(model, family(model).final_norm, model)]


def _plain_weight(projection: nn.Module) -> torch.Tensor:
    """The weight matrix (outputs, inputs) of a projection; ValueError if it is packed."""
    weight = getattr(projection, "weight", None)
    size = tuple(getattr(projection, name, None) for name in ("out_features", "in_features"))
    if (
        not isinstance(weight, torch.Tensor)
        or weight.dim() != 2
        or (None not in size and tuple(weight.shape) != size)
    ):
        raise ValueError(
            f"a projection of the MLPs is a {type(projection).__name__} with packed (quantised) "
            f"weights, whose rows and columns cannot be told apart and masked; {UNQUANTISED}"
        )
    return weight


def shape(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """The number of (layers, neurons) at each site.

    "intermediate" is what `down_proj` reads; "gate", "up" and "down" are what the three projections
    put out. "intermediate", "gate" and "up" are as wide as the MLP, "down" as the residual stream.

    Raises ValueError as `mlp_sites` does, for packed (quantised) weights and for layers of
    different widths.
    """
    sites = mlp_sites(model)

    def width(projections: Sequence[nn.Module], dimension: int, name: str) -> tuple[int, int]:
        widths = {int(_plain_weight(p).shape[dimension]) for p in projections}
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
