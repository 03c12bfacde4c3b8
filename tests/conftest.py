"""Fixtures shared by all tests: tiny random models, a padded batch for them, lxt's own scores."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

# The tensors are tiny: a second thread would only wait, and much longer on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands name their run in the environment; a test is none, whatever ran before it."""
    monkeypatch.delenv("CRANE_RUN", raising=False)


COMMON: dict[str, Any] = {
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
}
_QWEN: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
_GEMMA: dict[str, Any] = {
    "head_dim": 16,
    "query_pre_attn_scalar": 12,
    "sliding_window": 5,
    "attention_bias": True,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_VISION: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 4,
    "patch_size": 2,
}
#: What each family has and Llama has not, switched on and small enough to matter in 12 tokens.
SPECIFIC: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 5, "head_dim": 16},
    "ministral": {
        "sliding_window": 5,
        "head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "ministral3": {
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            # Queries are scaled by their position: here from the fifth token on.
            "original_max_position_embeddings": 4,
            "llama_4_scaling_beta": 0.3,
        },
    },
    "qwen2": _QWEN,  # always has biases on query, key and value
    "qwen3": {**_QWEN, "head_dim": 16, "attention_bias": True},
    "gemma": {"head_dim": 16, "attention_bias": True},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    "gemma3_text": _GEMMA,
    "gemma3": {},
}


def spread(model: Any) -> Any:
    """`model` in evaluation mode, its biases and norms random instead of 0 and 1, which would
    hide errors."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif "norm" in name:
                gemma = "gemma" in model.config.model_type  # whose norms weigh with 1 + weight
                parameter.uniform_(-0.5 if gemma else 0.5, 0.5 if gemma else 1.5)
    return model.eval()


def make_tiny(family: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random model of a family as small as `make_tiny_llama`'s, with all that the family has."""
    options = {**COMMON, **SPECIFIC[family], **overrides}
    if family == "gemma3":
        text = {**COMMON, **SPECIFIC["gemma3_text"], **overrides}
        options = {"text_config": text, "vision_config": _VISION, "mm_tokens_per_image": 4}
    attention = "eager" if options.get("attn_logit_softcapping") else "sdpa"
    attention = options.pop("attn_implementation", attention)
    config = AutoConfig.for_model(family, **options)
    torch.manual_seed(seed)
    model: PreTrainedModel = spread(
        AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    )
    return model


def make_tiny_llama(seed: int = 0, **overrides: object) -> LlamaForCausalLM:
    """A random Llama: 3 layers, hidden size 32, 48 MLP neurons per layer, 4 heads over 2 key-value
    heads, 64 tokens. Weights large enough for activations and gradients well away from zero."""
    torch.manual_seed(seed)
    model: LlamaForCausalLM = spread(LlamaForCausalLM(LlamaConfig(**{**COMMON, **overrides})))
    return model


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


@pytest.fixture(scope="session")
def lxt_reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Scores from lxt's own monkey-patched classes, one sample at a time, from another process."""
    out = tmp_path_factory.mktemp("lxt") / "reference.safetensors"
    script = Path(__file__).parent / "lxt_reference.py"
    subprocess.run([sys.executable, str(script), str(out)], check=True)
    return load_file(out)
