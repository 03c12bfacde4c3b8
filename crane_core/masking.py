"""Intervening on neurons: the masking of §3.4, for a while (`masked`) or for good (`bake`).

§3.4 sets the outputs of the masked neurons to zero. For zero that is done in the weights, which
are put back afterwards: an evaluation under a mask then costs exactly what one without costs, and
runs the same kernels. It is the same intervention at every site:

- intermediate neuron i is read by column i of `down_proj` only; a zero column is a zero input;
- output i of `gate_proj`, `up_proj` or `down_proj` is row i (and bias i): a zero row gives zero.

0 * x and x * 0 enter the products alike, so the result is the same to the bit wherever activations
are finite. Any other value, and weights that cannot be edited without touching something else
(shared, quantised or offloaded ones), go through hooks that replace the activations.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from crane_core import models
from crane_core.neurons import NeuronSet

#: site -> the projection where it is found, and the dimension of its weight that counts neurons.
_PLACES = {
    "intermediate": ("down_proj", 1),
    "gate": ("gate_proj", 0),
    "up": ("up_proj", 0),
    "down": ("down_proj", 0),
}

Value = float | Mapping[str, Tensor]


def _places(
    model: PreTrainedModel, neurons: NeuronSet
) -> Iterator[tuple[str, int, nn.Module, Tensor]]:
    """Site, layer, projection and mask (width,) wherever there is something to mask."""
    for site, masks in neurons.masks.items():
        for layer, mlp in enumerate(models.mlp_sites(model)):
            if masks[layer].any():
                yield site, layer, getattr(mlp, _PLACES[site][0]), masks[layer]


def _own_weights(model: PreTrainedModel, neurons: NeuronSet) -> bool:
    """Whether every weight to be zeroed is a plain one that nothing else in the model uses."""
    parameters = [p for _, p in model.named_parameters(remove_duplicate=False)]
    users = Counter(p.data_ptr() for p in parameters if not p.is_meta)
    return all(
        type(projection) is nn.Linear
        and all(not p.is_meta and users[p.data_ptr()] == 1 for p in projection.parameters())
        for _, _, projection, _ in _places(model, neurons)
    )


def _zero(parameter: Tensor, dimension: int, index: Tensor) -> Callable[[], None]:
    """Zero slices of a weight or bias in place; return what puts their very bits back."""
    with torch.no_grad():
        kept = parameter.index_select(dimension, index)
        parameter.index_fill_(dimension, index, 0)

    def restore() -> None:
        with torch.no_grad():
            parameter.index_copy_(dimension, index, kept)

    return restore


def _replace(projection: nn.Module, site: str, mask: Tensor, value: Tensor) -> Callable[[], None]:
    """Hook a projection so that masked activations take `value`; return what removes the hook."""
    on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def replaced(activation: Tensor) -> Tensor:
        device = activation.device
        if device not in on:
            on[device] = mask.to(device), value.to(activation)
        return torch.where(on[device][0], on[device][1], activation)

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return replaced(args[0]), *args[1:]

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return replaced(output)

    if site == "intermediate":
        return projection.register_forward_pre_hook(before).remove
    return projection.register_forward_hook(after).remove


def _checked_value(neurons: NeuronSet, value: Value) -> dict[str, Tensor] | float:
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"mask value is {value}; a finite number is needed")
        return float(value)
    if not isinstance(value, Mapping):
        raise TypeError(
            "mask value must be a number or a dict site -> tensor (layers, width); "
            f"got {type(value).__name__}"
        )
    for site, masks in neurons.masks.items():
        if not masks.any():
            continue
        if site not in value:
            raise ValueError(f"the set has neurons at site {site!r}, but no value is given there")
        if value[site].shape != masks.shape:
            raise ValueError(
                f"values at site {site!r} have shape {tuple(value[site].shape)}; "
                f"(layers, width) is {tuple(masks.shape)}"
            )
        bad = (masks & ~value[site].cpu().isfinite()).nonzero().tolist()
        if bad:
            raise ValueError(
                f"the value at site {site!r} is not finite for neuron (layer, neuron) {bad[0]}"
            )
    return dict(value)


@contextmanager
def masked(
    model: PreTrainedModel, neurons: NeuronSet, value: Value = 0.0
) -> Iterator[PreTrainedModel]:
    """The model with `neurons` set to `value` at every position, inside a `with` block (§3.4).

    Parameters
    ----------
    model : the model to intervene on; nothing else in it changes, and on exit, by an error too, it
        is what it was, to the bit.
    neurons : the set, made for a model of this shape.
    value : 0, another number, or a value per neuron as a dict site -> (layers, width).

    Blocks can be nested and then mask the union; leave them in reverse order, and let sets that
    take different values share no neuron, because only one value can hold. Where zero is done in
    the weights (see above), a hook of yours on `down_proj` still sees the activation of a masked
    intermediate neuron: it is what comes of it that is zero.

    Raises ValueError for a set made for another model's shape, for an unknown family or a model
    without gated MLPs, and for values that are missing, misshapen or not finite; TypeError for a
    value of another type.
    """
    neurons.require_shape(models.shape(model))
    values = _checked_value(neurons, value)
    in_weights = values == 0.0 and _own_weights(model, neurons)
    with ExitStack() as undo:
        for site, layer, projection, mask in _places(model, neurons):
            if in_weights:
                weight = projection.get_parameter("weight")
                index = mask.nonzero()[:, 0].to(weight.device)
                undo.callback(_zero(weight, _PLACES[site][1], index))
                if site != "intermediate" and projection.bias is not None:
                    undo.callback(_zero(projection.get_parameter("bias"), 0, index))
            else:
                replacement = (
                    torch.tensor(values) if isinstance(values, float) else values[site][layer]
                )
                undo.callback(_replace(projection, site, mask, replacement))
        yield model


def bake(
    model: PreTrainedModel,
    neurons: NeuronSet,
    path: str | os.PathLike[str],
    tokenizer: Any = None,
    value: Value = 0.0,
) -> Path:
    """Save the model with `neurons` zeroed as a plain checkpoint that any engine can load (§3.4).

    Parameters
    ----------
    model, neurons : as in `masked`; the model itself is left as it was.
    path : the folder to create. It gets a `SHA256SUMS`, which `models.load` checks.
    tokenizer : saved beside the weights if given.
    value : must be 0, because a neuron's constant is no weight of a gated MLP.

    Returns the folder. Nothing is left behind by an error or an interruption except a folder
    `.<name>.<process>` beside it.

    Raises FileExistsError if there is something at `path`, and ValueError for another value, for
    weights that are shared, quantised or offloaded, and for what `masked` raises it.
    """
    neurons.require_shape(models.shape(model))
    if _checked_value(neurons, value) != 0.0:
        raise ValueError(
            "only zero can be baked into a checkpoint; use masked(model, neurons, value) for others"
        )
    if not _own_weights(model, neurons):
        raise ValueError(
            "this set cannot be baked: its weights are shared with other layers, quantised, "
            "offloaded or not those of a plain nn.Linear; load the model unquantised on one device"
        )
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; remove it or choose another folder")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with masked(model, neurons):
            model.save_pretrained(draft)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        models.write_checksums(draft)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path
