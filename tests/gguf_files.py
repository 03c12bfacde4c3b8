"""GGUF files of small models, written as llama.cpp's converter writes them, not as we read them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from transformers import PreTrainedModel

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
}
#: Gemma 2 and 3 have four norms a layer, and the second is not the one before the MLP.
FOUR_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama"}


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection as llama.cpp rotates them: pairs of neighbours."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def gguf_name(name: str, family: str) -> str:
    stem, kind = name.rsplit(".", 1)
    names = NAMES | FOUR_NORMS if family in ("gemma2", "gemma3_text") else NAMES
    if stem in names:
        return f"{names[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{names[rest]}.{kind}"


def written(
    model: PreTrainedModel,
    file: Path,
    quantised: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    tokens: str = "llama",
    tensors: Mapping[str, np.ndarray] | None = None,
    **said: Any,
) -> Path:
    """Write a model as GGUF and round its matrices to what the file holds of them.

    `tokens` names the vocabulary, "llama" or how a byte-level one cuts texts; `tensors` are further
    ones. `said` are further values of the header, by their keys with `__` for the dots; None leaves
    one out that is written otherwise.
    """
    config = model.config
    family = config.model_type
    architecture = ARCHITECTURES.get(family, family)
    writer = gguf.GGUFWriter(file, architecture)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    values: dict[str, Any] = {
        "general.name": "Tiny",
        "context_length": config.max_position_embeddings,
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
    }
    if architecture == "llama":
        values |= {"rope.dimension_count": head, "vocab_size": config.vocab_size}
    elif family != "qwen2":
        values |= {"attention.key_length": head, "attention.value_length": head}
    if family in ("gemma2", "gemma3_text"):
        values["attention.sliding_window"] = config.sliding_window
    values |= {key.replace("__", "."): value for key, value in said.items()}
    if tokens == "llama":
        kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2]
        words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(40)), "▁"]
        kinds += [gguf.TokenType.BYTE] * 40 + [gguf.TokenType.NORMAL] * (config.vocab_size - 43)
        words += [*"abcdefghijklmnop", "ab", "▁a", "▁ab", "cd"]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(words)
        writer.add_token_scores([float(-i) for i in range(len(words))])
        writer.add_token_types(kinds)
        special = {"bos": 1, "eos": 2, "unknown": 0}
    else:
        alphabet = [*"abcdefghijklmnopqrstuvwxyz0123456789Ġ", *"ABCDEFGHIJKLMNOPQRSTUVW"]
        words = [*alphabet, "ab", "abc", "<|begin|>", "<|end|>"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(tokens)
        writer.add_token_list(words)
        writer.add_token_types(
            [gguf.TokenType.NORMAL] * (len(words) - 2) + [gguf.TokenType.CONTROL] * 2
        )
        writer.add_token_merges(["a b", "ab c"])
        special = {"bos": len(words) - 2, "eos": len(words) - 1}
    assert len(words) == config.vocab_size
    for name, number in special.items():
        values.setdefault(f"tokenizer.ggml.{name}_token_id", number)
    for key, value in values.items():
        key = key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        if value is not None:
            add.get(type(value), writer.add_string)(key, value)
    with torch.no_grad():
        tied = config.tie_word_embeddings
        for name, weight in model.named_parameters():
            if tied and name.startswith("lm_head"):
                continue
            stored = weight.float().numpy().copy()
            if architecture.startswith("gemma") and name.endswith("norm.weight"):
                stored += 1
            if architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
                own = "num_attention_heads" if ".q_proj" in name else "num_key_value_heads"
                stored = permuted(stored, getattr(config, own))
            kind = gguf.GGMLQuantizationType.F32
            if weight.dim() == 2:
                kind = quantised
                rounded = quantize(weight.numpy(), kind)
                weight.copy_(torch.tensor(dequantize(rounded, kind).reshape(weight.shape)))
            packed = stored if kind == 0 else quantize(stored, kind)
            writer.add_tensor(gguf_name(name, family), packed, raw_dtype=kind)
    for name, values_of in (tensors or {}).items():
        writer.add_tensor(name, values_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
