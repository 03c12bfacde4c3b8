"""Integrated gradients of neurons, layer by layer: what AttnLRP's relevance is held against.

One layer's activations are scaled from 0 to what they are, all neurons of the layer together, and
activation x gradient is averaged along the way (Sundararajan et al., 2017). Unlike relevance it
adds up, over a layer's neurons, to what the output loses when all of them are zero.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from crane_core.attribution import neuron_relevance
from crane_core.interventions import Intervention, Scale, intervened
from crane_core.models import shape
from crane_core.neurons import NeuronSet


def integrated_gradients(
    model: PreTrainedModel, input_ids: Tensor, objective: str = "next_token", steps: int = 16
) -> Tensor:
    """(samples, layers, neurons), float32, in units of the objective, summed over tokens.

    `input_ids` (samples, tokens) without padding; `steps` points in the middle of as many equal
    parts of the way. Raises ValueError for fewer than one step, and as `neuron_relevance`.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    size = shape(model)["intermediate"]
    read = partial(neuron_relevance, model, input_ids, None, objective, rules="gradient")
    layers = []
    for layer in range(size[0]):
        chosen = torch.zeros(size, dtype=torch.bool)
        chosen[layer] = True
        own = NeuronSet({"intermediate": chosen}, shape(model))
        found = torch.zeros(len(input_ids), size[1], device=model.device)
        for step in range(steps):
            part = (step + 0.5) / steps
            with intervened(model, Intervention(Scale(own, part))):
                # What is read is scaled as well: part x activation x gradient.
                found += read()[:, layer] / part
        layers.append(found / steps)
    return torch.stack(layers, dim=1)
