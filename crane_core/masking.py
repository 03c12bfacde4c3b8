"""Masking as in §3.4, for a while (`masked`) or for good (`bake`).

Both are the `Intervention` that the paper uses, setting neurons to a value, by its usual name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from crane_core.families import shape as model_shape
from crane_core.files import replacing
from crane_core.interventions import Intervention, SetTo, Value, intervened, own_weights
from crane_core.models import write_checksums
from crane_core.neurons import NeuronSet


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
    take different values share no neuron, because only one value can hold.

    Raises ValueError for a set made for another model's shape, for an unknown family or a model
    without gated MLPs, and for values that are missing, misshapen or not finite; TypeError for a
    value of another type.
    """
    with intervened(model, Intervention(SetTo(neurons, value))):
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

    Returns the folder. Nothing is left behind by an error.

    Raises FileExistsError if there is something at `path`, and ValueError for another value, for
    weights that are shared, quantised or offloaded, and for what `masked` raises it.
    """
    neurons.require_shape(model_shape(model))
    if not SetTo(neurons, value).is_zero:
        raise ValueError(
            "only zero can be baked into a checkpoint; use masked(model, neurons, value) for others"
        )
    if not own_weights(model, neurons):
        raise ValueError(
            "this set cannot be baked: its weights are shared with other layers, quantised, "
            "offloaded or not those of a plain nn.Linear; load the model unquantised on one device"
        )
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; remove it or choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        with masked(model, neurons):
            model.save_pretrained(draft)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        write_checksums(draft)
    return path
