"""Models in GGUF against the models that the files were written from."""

import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from conftest import make_tiny
from gguf import GGMLQuantizationType as Packed
from gguf_files import written
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from crane_core import models
from crane_core.masking import bake
from crane_core.neurons import NeuronSet

#: Family -> what its configuration has in GGUF, and what the header says besides.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": ({"attention_bias": False, "mlp_bias": False}, {}),
    "mistral": ({"sliding_window": 64}, {}),
    "qwen2": ({"use_sliding_window": False}, {}),
    "qwen3": ({"use_sliding_window": False, "attention_bias": False}, {}),
    "gemma": ({"attention_bias": False}, {}),
    "gemma2": (
        {"attention_bias": False, "query_pre_attn_scalar": 16, "layer_types": None},
        {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
    "gemma3_text": (
        {"attention_bias": False, "query_pre_attn_scalar": 16, "layer_types": None},
        {"attention__sliding_window_pattern": 2},
    ),
}


def a_model(family: str, **overrides: Any) -> PreTrainedModel:
    options = {"intermediate_size": 64, **CASES[family][0], **overrides}
    if options.get("layer_types", ...) is None:
        pair = ["sliding_attention", "full_attention", "sliding_attention"]
        options["layer_types"] = pair
    return make_tiny(family, **options)


def a_file(model: PreTrainedModel, folder: Path, packed: Packed = Packed.F32, **said: Any) -> Path:
    family = model.config.model_type
    said = {**CASES[family][1], **said}
    said.setdefault("tokens", "qwen2" if family.startswith("qwen") else "llama")
    return written(model, folder / "model.gguf", packed, **said)


def logits(model: PreTrainedModel) -> Tensor:
    ids = torch.randint(0, 64, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("packed", [Packed.F32, Packed.BF16, Packed.Q8_0, Packed.Q5_0])
@pytest.mark.parametrize("family", CASES)
def test_logits_are_those_of_the_model_it_was_written_from(
    family: str, packed: Packed, tmp_path: Path
) -> None:
    """`written` rounds the model to what gguf's own dequantisation gives of what it has packed."""
    model = a_model(family)
    file = a_file(model, tmp_path, packed)
    loaded, _ = models.load(file)
    assert loaded.config.model_type == ("llama" if family == "mistral" else family)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-5)
    assert {w.dtype for w in loaded.parameters()} == {torch.float32} and not loaded.training
    assert models.read_config(tmp_path).to_dict() == models.read_config(file).to_dict()


def test_types_and_untied_heads(tmp_path: Path) -> None:
    model = a_model("llama", tie_word_embeddings=False)
    loaded, _ = models.load(a_file(model, tmp_path, Packed.Q8_0), "bfloat16")
    assert loaded.dtype == torch.bfloat16 and not loaded.config.tie_word_embeddings
    expected = dict(model.bfloat16().named_parameters())
    assert all(torch.equal(w, expected.pop(name)) for name, w in loaded.named_parameters())
    assert not expected


def test_what_comes_of_it_can_be_saved(tmp_path: Path) -> None:
    loaded, tokenizer = models.load(a_file(a_model("gemma3_text"), tmp_path, Packed.Q8_0))
    loaded.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    again, other = models.load(tmp_path / "plain")
    assert models.fingerprint(again) == models.fingerprint(loaded)
    assert other("ab cd").input_ids == tokenizer("ab cd").input_ids
    about = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert "quantization_config" not in about and str(tmp_path) not in json.dumps(about)
    bake(loaded, NeuronSet.from_pairs([(0, 1)], models.shape(loaded)), tmp_path / "baked")
    baked = type(loaded).from_pretrained(tmp_path / "baked")
    assert not torch.equal(logits(baked), logits(loaded))


# --- positions ----------------------------------------------------------------------------------


def test_bases_of_positions(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 50.0}
    model = a_model("qwen3", rope_parameters=rope)
    torch.testing.assert_close(logits(models.load(a_file(model, tmp_path))[0]), logits(model))
    both = {"full_attention": rope, "sliding_attention": {**rope, "rope_theta": 30.0}}
    model = a_model("gemma3_text", rope_parameters=both)
    file = a_file(model, tmp_path, rope__freq_base_swa=30.0)
    torch.testing.assert_close(logits(models.load(file)[0]), logits(model))


def test_linear_scaling(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0}
    said: dict[str, Any] = {"rope__scaling__type": "linear", "rope__scaling__factor": 8.0}
    model = a_model("llama", rope_parameters=rope)
    file = a_file(model, tmp_path, **said)
    torch.testing.assert_close(logits(models.load(file)[0]), logits(model))
    # Gemma 3 scales where attention is full alone.
    local = {"rope_type": "default", "rope_theta": 10_000.0}
    both = {"full_attention": rope, "sliding_attention": local}
    model = a_model("gemma3_text", rope_parameters=both)
    file = a_file(model, tmp_path, **said)
    torch.testing.assert_close(logits(models.load(file)[0]), logits(model))
    with pytest.raises(ValueError, match="yarn scaling"):
        models.read_config(a_file(model, tmp_path, rope__scaling__type="yarn"))


def divisors(size: int, theta: float, factor: float) -> np.ndarray:
    """What llama.cpp's converter writes for Llama 3.1: by wavelength."""
    found = []
    for i in range(0, size, 2):
        wave = 2 * math.pi * theta ** (i / size)
        smooth = (8192 / wave - 1) / (4 - 1)
        between = 1 / ((1 - smooth) / factor + smooth)
        found.append(1 if wave < 8192 / 4 else factor if wave > 8192 / 1 else between)
    return np.array(found, np.float32)


def test_llama_3(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 8192}
    model = a_model("llama", head_dim=32, rope_parameters=rope)
    values = divisors(32, 500_000.0, 32.0)
    assert 1 < np.unique(values)[1] < 32
    file = a_file(model, tmp_path, tensors={"rope_freqs.weight": values})
    loaded, _ = models.load(file)
    assert loaded.config.rope_parameters["factor"] == 32
    torch.testing.assert_close(logits(loaded), logits(model))
    file = a_file(model, tmp_path, tensors={"rope_freqs.weight": values**1.1})
    with pytest.raises(ValueError, match=r"rope_freqs\.weight are not those of Llama 3"):
        models.read_config(file)


@pytest.mark.parametrize(("family", "layers"), [("gemma2", 46), ("gemma3_text", 62)])
def test_models_of_27_billion_scale_queries_otherwise(
    family: str, layers: int, tmp_path: Path
) -> None:
    model = a_model(family, num_hidden_layers=layers, layer_types=["full_attention"] * layers)
    assert models.read_config(a_file(model, tmp_path)).query_pre_attn_scalar == 32 // 4


# --- tokenizers ---------------------------------------------------------------------------------


def test_texts_open_with_bos_as_in_llama_cpp(tmp_path: Path) -> None:
    llama, qwen = a_model("llama"), a_model("qwen2")

    def opened(model: PreTrainedModel, **said: Any) -> bool:
        tokenizer = models.load_tokenizer(a_file(model, tmp_path, **said))
        ids = tokenizer("ab cd").input_ids
        assert tokenizer("ab cd", add_special_tokens=False).input_ids == [
            token for token in ids if token != tokenizer.bos_token_id
        ]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "ab cd"
        return ids[0] == tokenizer.bos_token_id and tokenizer.bos_token_id is not None

    assert opened(llama)
    assert opened(llama, tokenizer__ggml__add_bos_token=True)
    assert not opened(llama, tokenizer__ggml__add_bos_token=False)
    assert not opened(llama, tokenizer__ggml__bos_token_id=None)
    assert opened(a_model("gemma3_text"))
    assert not opened(qwen)
    assert opened(qwen, tokens="llama-bpe")
    assert opened(qwen, tokenizer__ggml__add_bos_token=True)


def test_tokens(tmp_path: Path) -> None:
    tokens = models.load_tokenizer(a_file(a_model("llama"), tmp_path))
    assert tokens.tokenize("ab cd") == ["▁ab", "▁", "cd"]
    said: dict[str, Any] = {"tokenizer__ggml__add_space_prefix": False}
    tokens = models.load_tokenizer(a_file(a_model("llama"), tmp_path, **said))
    assert tokens.tokenize("ab cd") == ["ab", "▁", "cd"]
    assert tokens.convert_tokens_to_string(["<0x1F>"]) == "\x1f"
    qwen = a_model("qwen2")
    tokens = models.load_tokenizer(a_file(qwen, tmp_path))
    assert tokens.tokenize("abc 12") == ["abc", "Ġ", "1", "2"]
    assert tokens.backend_tokenizer.normalizer.normalize_str("e\u0301") == "\u00e9"
    assert tokens("<|end|>").input_ids == [tokens.eos_token_id]
    tokens = models.load_tokenizer(a_file(qwen, tmp_path, tokens="smollm"))
    assert [t for t, _ in tokens.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a 12")] == [
        "a",
        "Ġ",
        "1",
        "2",
    ]
    with pytest.raises(ValueError, match=r"'nonesuch'.* folder with its tokenizer's files"):
        models.load_tokenizer(a_file(qwen, tmp_path, tokens="nonesuch"))
    assert models.read_config(tmp_path).eos_token_id == 63
    file = a_file(qwen, tmp_path, tokenizer__ggml__eot_token_id=5)
    assert models.read_config(file).eos_token_id == [63, 5]


def test_a_folders_own_tokenizer_is_taken(tmp_path: Path) -> None:
    file = a_file(a_model("gemma3_text"), tmp_path)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2").save_pretrained(tmp_path)
    assert models.load(tmp_path)[1].convert_ids_to_tokens(5) == "w5"
    assert models.load(file)[1].convert_ids_to_tokens(1) == "<s>"


# --- what is found where ------------------------------------------------------------------------


def test_folders(tmp_path: Path) -> None:
    model = a_model("llama")
    file = a_file(model, tmp_path, Packed.Q8_0)
    packed = models.fingerprint(models.load(tmp_path)[0])
    assert packed == models.fingerprint(models.load(str(file))[0])
    large = file.rename(tmp_path / "model-Q8_0.GGUF")
    assert packed == models.fingerprint(models.load(large)[0])
    shutil.copy(large, tmp_path / "other.gguf")
    with pytest.raises(
        ValueError, match=r"holds 2 GGUF files \(model-Q8_0\.GGUF, other\.gguf\); give one of them"
    ):
        models.load(tmp_path)
    assert packed == models.fingerprint(models.load(large)[0])
    other = make_tiny("llama", seed=1)
    other.save_pretrained(tmp_path)
    models.load_tokenizer(large).save_pretrained(tmp_path)
    assert models.fingerprint(models.load(tmp_path)[0]) == models.fingerprint(other)


def test_checksums_are_verified(tmp_path: Path) -> None:
    file = a_file(a_model("llama"), tmp_path)
    models.write_checksums(tmp_path)
    models.load(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.gguf is truncated or altered"):
        models.load(tmp_path)


def test_parts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"tiny-0000{number}-of-00002.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "tiny-00002-of-00002.gguf"):
        with pytest.raises(
            ValueError, match=r"0000\d-of-00002\.gguf is a part .*gguf-split --merge"
        ):
            models.load(path)


# --- files that cannot be read ------------------------------------------------------------------


def header(counts: tuple[int, int], rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, *counts) + rest


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


#: A million million values where there are none.
ARRAY = text("a.b") + struct.pack("<IIQ", 9, 0, 10**12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"<!doctype html>", "a web page"),
        (b"nothing of the kind", "does not start with the GGUF magic bytes"),
        (b"GGUF", "buffer"),
        (header((0, 2**60)), "buffer"),
        (header((2**60, 0)), "general.architecture"),
        (header((0, 1), ARRAY), "buffer"),
        (header((0, 1), text("general.architecture") + struct.pack("<I", 99)), "type 99"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "GGUF v50331648"),
    ],
)
def test_no_model(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    for path in (tmp_path, file):
        with pytest.raises(ValueError, match=rf"cannot be read, its model\.gguf: .*{message}"):
            models.load(path)


def test_cut_files(tmp_path: Path) -> None:
    file = a_file(a_model("qwen3"), tmp_path, Packed.Q8_0)
    content = file.read_bytes()
    for kept in range(30, len(content), len(content) // 40):
        file.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"cannot be read, its (model\.gguf|tokenizer): "):
            models.load(file)
    file.write_bytes(content[:-100])
    assert models.read_config(file).num_hidden_layers == 3  # which needs no weights


def refused(file: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.load(file)


def test_what_is_not_known_here(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "phi3")
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    refused(tmp_path, r"architecture is 'phi3', .* of llama, qwen2, .*gemma3 can be read")
    model = a_model("llama")
    refused(a_file(model, tmp_path, expert_count=8), r"knows nothing of: llama\.expert_count")
    refused(a_file(model, tmp_path, block_count=None), r"does not say llama\.block_count")
    refused(a_file(model, tmp_path, rope__dimension_count=4, attention__key_length=8), "sizes")


def test_weights_that_are_not_the_headers(tmp_path: Path) -> None:
    model = a_model("llama")
    refused(a_file(model, tmp_path, block_count=4), r"lacks weights: model\.layers\.3\.")
    refused(a_file(model, tmp_path, block_count=2), r"no place for its blk\.2\.")
    refused(
        a_file(model, tmp_path, feed_forward_length=96),
        r"has shape \(32, 64\), expected \(32, 96\)",
    )
    extra = {"blk.0.attn_q.bias": np.zeros(32, np.float32)}
    refused(a_file(model, tmp_path, tensors=extra), r"no place for its blk\.0\.attn_q\.bias")
    with torch.no_grad():
        model.get_parameter("model.norm.weight")[0] = torch.nan
    refused(a_file(model, tmp_path), r"not finite as torch\.float32.*: model\.norm\.weight")
