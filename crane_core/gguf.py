"""Models in GGUF, llama.cpp's format, made plain: its names, its layouts and its defaults (§4.1).

What a file says of its model, and nothing here knows, is an error: left out, it would be another
model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast
from transformers import modeling_gguf_pytorch_utils as layouts
from transformers.integrations import gguf as reader
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

#: llama.cpp's name of each family that can be read, and transformers' (`config.model_type`).
ARCHITECTURES = {name: name for name in ("llama", "qwen2", "qwen3", "gemma", "gemma2")}
ARCHITECTURES["gemma3"] = "gemma3_text"
#: What a file must say, what it may, and what is read by itself or changes no forward pass.
_NEEDED = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_OPTIONAL = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_ROPE = ("freq_base", "freq_base_swa", "scaling.type", "scaling.factor", "scaling.finetuned")
_BESIDES = {*_SIZES, *(f"rope.{name}" for name in _ROPE)}
_BESIDES |= {"vocab_size", "tensor_data_layout", "attention.sliding_window_pattern"}
_DIVISORS = "rope_freqs.weight"
#: Ways to cut texts whose vocabularies begin them with BOS unless the file says otherwise.
_BEGUN = {"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0", "tekken"}


def gguf_file(path: str) -> Path | None:
    """The GGUF file at a path, or in a folder without safetensors; None if there is none.

    Raises ValueError for several in a folder, and for one that is a part of a model.
    """
    found = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob("*"))
    if any(file.name.startswith("model.safetensors") for file in found):
        return None
    found = [file for file in found if file.suffix.lower() == ".gguf"]
    if parts := [file for file in found if re.search(r"-\d+-of-\d+$", file.stem)]:
        raise ValueError(
            f"{parts[0]} is a part of a model; join the parts with llama.cpp, `llama-gguf-split "
            "--merge FIRST-PART WHOLE.gguf`, and give what comes of it"
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{path} holds {len(found)} GGUF files ({names}); give one of them")
    return found[0] if found else None


def gguf_config(file: Path) -> PreTrainedConfig:
    """The configuration that a GGUF file and llama.cpp's defaults say, without the weights.

    Raises ValueError for an unknown architecture and for what is not known here of a known one;
    whatever the readers raise for a damaged file.
    """
    said, names = reader.read_gguf_metadata(str(file))
    architecture = said["general.architecture"]
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"its architecture is {architecture!r}, and of GGUF files only those of "
            f"{', '.join(ARCHITECTURES)} can be read; take the model in safetensors"
        )
    start = f"{architecture}."
    own = {key.removeprefix(start): said[key] for key in said if key.startswith(start)}
    for key in sorted((own.keys() ^ _NEEDED.keys()) - _OPTIONAL.keys() - _BESIDES):
        problem = "does not say" if key in _NEEDED else "says what CRANE knows nothing of:"
        raise ValueError(f"it {problem} {start}{key}")
    values: dict[str, Any] = {v: own[k] for k, v in (_NEEDED | _OPTIONAL).items() if k in own}
    layers, even = own["block_count"], own["embedding_length"] // own["attention.head_count"]
    sizes = [own[key] for key in _SIZES if key in own] or [even]
    scaling = own.get("rope.scaling.type", "none")
    if len({*sizes}) > 1 or scaling not in ("none", "linear"):
        raise ValueError(f"its heads (sizes {sizes}, {scaling} scaling) are of no kind known here")
    rope = {"rope_type": "default", "rope_theta": own.get("rope.freq_base", 10_000.0)}
    if scaling == "linear":
        rope |= {"rope_type": "linear", "factor": own["rope.scaling.factor"]}
    if _DIVISORS in names:
        rope = _llama3(file, rope["rope_theta"], sizes[0])
    values |= {"head_dim": sizes[0], "rope_parameters": rope}
    if architecture == "gemma3":
        local = {"rope_type": "default", "rope_theta": own.get("rope.freq_base_swa", 10_000.0)}
        values["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
        period, kinds = own.get("attention.sliding_window_pattern", 6), [*values["rope_parameters"]]
        values["layer_types"] = [kinds[i % period > 0] for i in range(1, layers + 1)]
    if architecture in ("gemma2", "gemma3"):  # those of 27 billion are known by their layers
        values["query_pre_attn_scalar"] = even if layers in (46, 62) else sizes[0]
    special = ("bos", "eos", "eot", "padding")
    bos, eos, eot, padding = (said.get(f"tokenizer.ggml.{name}_token_id") for name in special)
    return AutoConfig.for_model(
        ARCHITECTURES[architecture],
        vocab_size=said["tokenizer.ggml.tokens"],
        tie_word_embeddings="output.weight" not in names,
        bos_token_id=bos,
        eos_token_id=eos if eot in (None, eos) else [eos, eot],
        pad_token_id=padding,
        **values,
    )


def _llama3(file: Path, theta: float, size: int) -> dict[str, Any]:
    """How positions are scaled, of which files of Llama 3.1 and later hold what comes of it."""
    divisors = next(t.data for t in _tensors(file) if t.name == _DIVISORS)
    rope = {"rope_type": "llama3", "rope_theta": theta, "factor": float(divisors.max())}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # as Meta has published them
    rope |= {"original_max_position_embeddings": 8192}
    config = AutoConfig.for_model("llama", head_dim=size, rope_parameters=rope)
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = theta ** -(torch.arange(0, size, 2) / size)
    if not torch.allclose(frequencies * torch.tensor(divisors), plain, rtol=1e-3, atol=0):
        raise ValueError(f"its {_DIVISORS} are not those of Llama 3.1 or 3.2")
    return rope


def _tensors(file: Path) -> list[Any]:
    from gguf import GGUFReader  # which the environment of vLLM lacks

    reader.read_gguf_metadata(str(file))  # a damaged header is found sooner than by GGUFReader
    return list(GGUFReader(file).tensors)


def gguf_model(file: Path, dtype: torch.dtype, **how: Any) -> Any:
    """A model with all weights dequantised in float32, then in `dtype`; and how that went.

    `how` is what transformers' `from_pretrained` is told, the configuration among it. Raises
    ValueError for tensors that the model has no place for; whatever the readers raise for a file
    that is cut or packed in an unknown way.
    """
    from gguf import dequantize

    config = how["config"]
    architecture = {v: k for k, v in ARCHITECTURES.items()}[config.model_type]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # All of Gemma's norms are written as what they weigh with, 1 + weight.
    kind = "gemma2" if architecture == "gemma" else architecture
    processor = layouts.TENSOR_PROCESSORS.get(kind, layouts.TensorProcessor)(config.to_dict())
    names, weights = layouts.get_gguf_hf_weights_map(model, processor), {}
    for tensor in _tensors(file):
        if tensor.name != _DIVISORS:
            if tensor.name not in names:
                raise ValueError(f"the model has no place for its {tensor.name}")
            values = dequantize(tensor.data, tensor.tensor_type)
            values = processor.process(values, tensor.name).weights
            weights[names[tensor.name]] = torch.tensor(values, dtype=dtype)
    return type(model).from_pretrained(None, state_dict=weights, dtype=dtype, **how)


def gguf_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a GGUF file, which opens a text with BOS if the file or its kind say so.

    Raises ValueError for a kind, or a way to cut texts, that is not known here.
    """
    said, _ = reader.read_gguf_metadata(str(file))
    architecture, parts, special = reader.get_gguf_tokenizer(str(file))
    words, _ = reader.convert_gguf_tokenizer(architecture, parts)
    kind, cut = parts["tokenizer_type"], parts.get("pre_tokenizer_type")
    if kind == "gpt2":
        if cut == "smollm":
            numbers = pre_tokenizers.Digits(individual_digits=True)
            rest = pre_tokenizers.ByteLevel(add_prefix_space=False)
            words.pre_tokenizer = pre_tokenizers.Sequence([numbers, rest])
        elif cut not in {"gpt-2", *GGUF_PRE_TOKENIZER_SPLITS}:
            raise ValueError(
                f"it cuts texts in a way (tokenizer.ggml.pre is {cut!r}) that is not known here; "
                "put it into a folder with its tokenizer's files, and give that folder"
            )
        if cut == "qwen2":
            words.normalizer = normalizers.NFC()
        words.model.ignore_merges = cut in _BEGUN
    elif not said.get("tokenizer.ggml.add_space_prefix", True) and "gemma" not in architecture:
        words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    begun = said.get("tokenizer.ggml.add_bos_token", kind == "llama" or cut in _BEGUN)
    return PreTrainedTokenizerFast(tokenizer_object=words, add_bos_token=begun, **special)
