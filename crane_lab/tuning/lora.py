"""LoRA that changes the weights of chosen neurons and no others.

Neuron i of a gated MLP is row i of `gate_proj` and of `up_proj` and column i of `down_proj`. LoRA
(Hu et al., 2022) adds B A to a weight: rows of B for the first two, and columns of A for the third,
are set to zero for all other neurons and kept there, so that B A is zero for them, exactly. The LSN
paper masks A and B to the neurons, and does not say of which projections; its public code masks
`gate_proj` alone, and for XNLI not even that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from crane_core.families import decoder, mlp_sites
from crane_core.neurons import NeuronSet

#: The MLP's projections that hold a neuron, which factor of LoRA has a place for it, and where.
_PARTS = {"gate_proj": ("lora_B", 0), "up_proj": ("lora_B", 0), "down_proj": ("lora_A", 1)}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
#: Which projections of a chosen neuron are trained: all three, or the public code's one.
PARTS = {"neuron": tuple(_PARTS), "gate": ("gate_proj",)}


@contextmanager
def low_rank(
    model: PreTrainedModel,
    neurons: NeuronSet | None,
    rank: int,
    alpha: int,
    seed: int,
    parts: str = "neuron",
    attention: bool = True,
) -> Iterator[list[nn.Parameter]]:
    """A model whose attention and chosen neurons can be trained, inside a `with` block.

    What was learned is in the model's weights afterwards, unless the block ends with an error;
    everything else is as it was, to the bit. No parameter of the model requires a gradient then.

    Parameters
    ----------
    model : a decoder with `gate_proj`, `up_proj`, `down_proj` and separate attention projections.
    neurons : the intermediate neurons that are trained; None for all of them, an empty set for
        none, so that attention is trained alone.
    rank, alpha : of LoRA; B A is multiplied by alpha / rank.
    seed : of A's first values.
    parts : one of `PARTS`.
    attention : whether attention is trained, too.

    Yields the parameters to be trained, of which those of other neurons stay zero.

    Raises ValueError for unknown parts, a rank above the model's width, neurons of another model,
    nothing to train, and a model whose projections have other names or are not torch's `Linear`.
    """
    if parts not in PARTS:
        raise ValueError(f"unknown parts {parts!r}: expected one of {tuple(PARTS)}")
    require_rank(model, rank)
    if neurons is not None:
        neurons.require_shape({"intermediate": _shape(model)})
    mlps = mlp_sites(model)
    trained = PARTS[parts] if neurons is None or len(neurons) else ()
    targets = (*(ATTENTION if attention else ()), *trained)
    if not targets:
        raise ValueError("nothing to train: expected neurons, or attention")
    paths = {module: path for path, module in model.named_modules()}
    _require_linear(model, targets)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))
        adapted = LoraModel(model, config, "default")
    hooks = []
    if neurons is not None:
        for layer, mlp in enumerate(mlps):
            chosen = neurons.mask("intermediate")[layer].to(model.device)
            for name in trained:
                factor, dimension = _PARTS[name]
                adapter = model.get_submodule(f"{paths[getattr(mlp, name)]}.{factor}.default")
                weight = adapter.get_parameter("weight")
                hooks.append(_keep(weight, chosen[:, None] if dimension == 0 else chosen[None]))
    try:
        yield [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    except BaseException:
        adapted.unload()
        raise
    finally:
        for hook in hooks:
            hook.remove()
    adapted.merge_and_unload()


def _require_linear(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Raise ValueError for a projection that a layer lacks, or that is no linear one of torch."""
    for number, layer in enumerate(decoder(model).layers):
        found = {path.rpartition(".")[2]: part for path, part in layer.named_modules()}
        for name in targets:
            if name not in found:
                raise ValueError(
                    f"{type(model).__name__} has no {name!r} in layer {number}; expected a decoder "
                    f"with {', '.join((*ATTENTION, *_PARTS))} in every layer"
                )
            if not isinstance(found[name], nn.Linear):
                kind = type(found[name]).__name__
                raise ValueError(f"{name!r} of layer {number} is a {kind}: expected torch's Linear")


def require_rank(model: PreTrainedModel, rank: int) -> None:
    """Raise ValueError for a rank of LoRA that a model's width does not allow."""
    widest = min(_shape(model)[1], model.config.get_text_config().hidden_size)
    if not 1 <= rank <= widest:
        raise ValueError(f"rank is {rank}: expected 1 to {widest}, the model's width")


def _keep(weight: nn.Parameter, chosen: Tensor) -> torch.utils.hooks.RemovableHandle:
    """Set what is not chosen to zero, now and in every gradient."""
    with torch.no_grad():
        weight.mul_(chosen)
    return weight.register_hook(lambda gradient: gradient * chosen)


def _shape(model: PreTrainedModel) -> tuple[int, int]:
    mlps = mlp_sites(model)
    return len(mlps), int(mlps[0].down_proj.get_parameter("weight").shape[1])
