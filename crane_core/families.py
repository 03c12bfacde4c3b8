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
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
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
    """

    layers: str = "model.layers"
    mlp: str = "mlp"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    stream_norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    mlp_output_norm: str | None = None
    final_norm: str = "model.norm"
    norm_kind: Literal["llama", "gemma"] = "llama"


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
    "ministral": Family(),
    "ministral3": Family(),
    "qwen2": Family(),
    "qwen3": Family(
        norms=("input_layernorm", *_QUERY_KEY_NORMS, "post_attention_layernorm"),
    ),
    "gemma": Family(norm_kind="gemma"),
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


def adapter(config: PreTrainedConfig) -> Family:
    """The adapter of the family that `config.model_type` names.

    Raises ValueError if the family is unknown: why CRANE cannot work with it, as far as the
    configuration tells, or else which adapter to write and where.
    """
    model_type, text = config.model_type, config.get_text_config()
    if model_type not in FAMILIES:
        experts = ("num_experts", "num_local_experts", "n_routed_experts")
        layers = getattr(text, "layer_types", None) or ()
        for what, found in {
            "is an encoder with a decoder": config.is_encoder_decoder,
            "is a mixture of experts": any(getattr(text, name, None) for name in experts),
            "has linear attention, which AttnLRP has no rule for": "linear_attention" in layers,
            "reads more than text": text is not config,
        }.items():
            if found:
                raise ValueError(
                    f"a model of the family {model_type!r} {what}; CRANE takes dense decoders of "
                    f"text, of the families {', '.join(sorted(FAMILIES))}"
                )
        raise ValueError(
            f"no adapter for the model family {model_type!r} "
            f"(known: {', '.join(sorted(FAMILIES))}). Add FAMILIES[{model_type!r}] = Family(...) "
            "in crane_core/families.py with the paths of its decoder blocks, gated MLPs and RMS "
            "norms, and a small model of it to SPECIFIC in tests/conftest.py, to test it. CRANE "
            "needs gated MLPs (gate_proj, up_proj, down_proj); norms of another kind are refused."
        )
    return FAMILIES[model_type]


def family(model: PreTrainedModel) -> Family:
    """The adapter of `model`'s family; ValueError as `adapter` raises it."""
    return adapter(model.config)


def check_length(config: PreTrainedConfig, tokens: int) -> None:
    """Raise ValueError if a model is asked to read more tokens than it was built for."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and tokens > positions:
        raise ValueError(
            f"windows of {tokens} tokens are longer than the {positions} positions that the model "
            "was built for (max_position_embeddings); use shorter ones"
        )


def check_tokens(model: PreTrainedModel, input_ids: Tensor) -> None:
    """Raise ValueError for ids (samples, tokens) without embeddings and for too many of them."""
    rows, found = model.get_input_embeddings().weight.shape[0], input_ids.unique()
    if len(found) and not 0 <= int(found[0]) <= int(found[-1]) < rows:
        raise ValueError(
            f"input_ids hold {int(found[0])} to {int(found[-1])}, but the model's vocabulary has "
            f"{rows} tokens; were they made with another tokenizer?"
        )
    check_length(model.config, input_ids.shape[1])


def padded_inputs(input_ids: Tensor, mask: Tensor) -> dict[str, Any]:
    """What a model is called with to read a batch (samples, tokens), padded on either side."""
    inputs = {"input_ids": input_ids, "attention_mask": mask, "use_cache": False}
    if not mask[:, 0].all():  # padding on the left: count positions from the first real token
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return inputs


def few_tokens(model: PreTrainedModel) -> Tensor:
    """Four token ids, (1, 4), to try a model with."""
    return torch.arange(4, device=model.device)[None] % len(model.get_input_embeddings().weight)


def few_logits(model: PreTrainedModel) -> Tensor:
    """The model's logits at `few_tokens`, (1, 4, vocabulary), float32."""
    with torch.no_grad():
        return cast(Tensor, model(input_ids=few_tokens(model), use_cache=False).logits.float())


_linear_heads: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def linear_head(model: PreTrainedModel) -> bool:
    """Whether logits are the output embedding applied to the last hidden state and nothing else.

    Then single logits can be had without all the others. A soft cap or a scale makes them another
    thing, which no adapter has to know: a model is tried once, on a few tokens.
    """
    if model not in _linear_heads:
        head, logits = model.get_output_embeddings(), few_logits(model)
        with torch.no_grad():
            states = model.base_model(few_tokens(model), use_cache=False).last_hidden_state
            short = head(states).float() if type(head) is nn.Linear else states
        same = torch.equal(short.nan_to_num(), logits.nan_to_num())
        _linear_heads[model] = same and not caps_logits(model)
    return _linear_heads[model]


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
    """Every RMS normalisation of the model, in the order in which they are run.

    Raises ValueError for a normalisation that the family's adapter does not name.
    """
    known = _norms(model, family(model).norms)
    for name, module in decoder(model).named_modules():
        if type(module).__name__.lower().endswith("norm") and module not in known:
            raise ValueError(
                f"the adapter of the family {model.config.model_type!r} in crane_core/families.py "
                f"does not name the normalisation {name!r}, so no rule can be bound to it"
            )
    return known


def stream_norms(model: PreTrainedModel) -> list[nn.Module]:
    """The RMS normalisations that read the residual stream, in the order in which they are run.

    Each layer has two, before attention and before the MLP; the final norm is the last.
    """
    return _norms(model, family(model).stream_norms)


def _norms(model: PreTrainedModel, paths: Sequence[str]) -> list[nn.Module]:
    inner = [_submodule(block, path, model) for block in _blocks(model) for path in paths]
    return [*inner, _submodule(model, family(model).final_norm, model)]


def _plain_weight(projection: nn.Module) -> Tensor:
    """The weight matrix (outputs, inputs) of a projection; ValueError if it is packed."""
    weight = getattr(projection, "weight", None)
    size = tuple(getattr(projection, name, None) for name in ("out_features", "in_features"))
    if (
        not isinstance(weight, Tensor)
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
