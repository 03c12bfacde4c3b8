"""Fixtures shared by all tests: a tiny random Llama and a padded batch for it."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

# The tensors are tiny: a second thread would only wait, and much longer on a busy machine.
torch.set_num_threads(1)


def make_tiny_llama(seed: int = 0, **overrides: object) -> LlamaForCausalLM:
    """A random Llama: 3 layers, hidden size 32, 48 MLP neurons per layer, 4 heads over 2 key-value
    heads, 64 tokens. Weights large enough for activations and gradients well away from zero."""
    options: dict[str, object] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **overrides,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**options))
    with torch.no_grad():  # transformers starts biases at 0 and norms at 1, which would hide errors
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture
def make_llama() -> Callable[..., LlamaForCausalLM]:
    """The factory behind `tiny_llama`, for other seeds or configurations."""
    return make_tiny_llama


@pytest.fixture
def tiny_llama() -> Iterator[LlamaForCausalLM]:
    """A fresh seeded tiny Llama in evaluation mode."""
    yield make_tiny_llama()


@pytest.fixture
def tiny_batch() -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask`, (4, 12), padded on the right to lengths 12, 7, 10, 3."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 64, (4, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([12, 7, 10, 3])[:, None]).long()
    return ids * mask, mask
