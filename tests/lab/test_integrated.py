"""Integrated gradients against what they must add up to."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from crane_core import models
from crane_core.attribution import neuron_relevance, objective_values
from crane_core.masking import masked
from crane_core.neurons import NeuronSet
from crane_lab.study.integrated import integrated_gradients

Batch = tuple[Tensor, Tensor]


@pytest.mark.parametrize("objective", ["next_token", "next_token_logprob"])
def test_a_layers_sum_is_what_the_layer_adds(
    tiny_llama: LlamaForCausalLM, tiny_batch: Batch, objective: str
) -> None:
    ids = tiny_batch[0][:1]
    found = integrated_gradients(tiny_llama, ids, objective, steps=64)
    size = models.shape(tiny_llama)["intermediate"]
    whole = objective_values(tiny_llama, ids, objective=objective)
    for layer in range(size[0]):
        off = torch.zeros(size, dtype=torch.bool)
        off[layer] = True
        with masked(tiny_llama, NeuronSet({"intermediate": off}, models.shape(tiny_llama))):
            without = objective_values(tiny_llama, ids, objective=objective)
        torch.testing.assert_close(found[:, layer].sum(-1), whole - without, atol=2e-3, rtol=2e-2)


def test_relevance_does_not_add_up(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    """So that the test above says something: plain activation x gradient fails it."""
    ids = tiny_batch[0][:1]
    plain = neuron_relevance(tiny_llama, ids, rules="gradient")
    assert not torch.allclose(
        plain.sum(-1), integrated_gradients(tiny_llama, ids).sum(-1), rtol=0.05
    )


def test_one_step_at_least(tiny_llama: LlamaForCausalLM, tiny_batch: Batch) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        integrated_gradients(tiny_llama, tiny_batch[0][:1], steps=0)
