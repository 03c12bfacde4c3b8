import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny_llama
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from crane_core import models
from crane_core.masking import masked
from crane_core.selection import NeuronSet

Make = Callable[..., LlamaForCausalLM]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with tokenizer and checksums; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    make_tiny_llama(tie_word_embeddings=True).save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    models.write_checksums(folder)
    return folder


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def test_load(checkpoint: Path) -> None:
    model, tokenizer = models.load(checkpoint)
    assert not model.training
    assert model.dtype == torch.float32
    assert models.fingerprint(model) == models.fingerprint(
        make_tiny_llama(tie_word_embeddings=True)
    )
    assert len(tokenizer) == 64
    assert models.load(str(checkpoint), dtype="bfloat16")[0].dtype == torch.bfloat16


def test_loaded_weights_are_masked_in_place_and_the_file_is_not(checkpoint: Path) -> None:
    """Weights that are views of one mapped file are still each its own tensor."""
    model, _ = models.load(checkpoint)
    weights = models.fingerprint(model)
    with masked(model, NeuronSet.from_pairs([(0, 1)], models.shape(model))):
        assert models.fingerprint(model) != weights
    assert models.fingerprint(model) == weights
    models.verify_checksums(checkpoint)


def test_altered_weights(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or altered"):
        models.load(checkpoint)


@pytest.mark.parametrize("checksums", [True, False])
def test_truncated_weights(checkpoint: Path, checksums: bool) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    if not checksums:
        (checkpoint / models.CHECKSUMS).unlink()
    message = "truncated or altered" if checksums else "cannot be read"
    with pytest.raises(ValueError, match=message):
        models.load(checkpoint)


@pytest.mark.parametrize("checksums", [True, False])
def test_missing_weights(checkpoint: Path, checksums: bool) -> None:
    (checkpoint / "model.safetensors").unlink()
    if not checksums:
        (checkpoint / models.CHECKSUMS).unlink()
    message = r"model\.safetensors is missing" if checksums else r"no \.safetensors file"
    with pytest.raises(FileNotFoundError, match=message):
        models.load(checkpoint)


def test_incomplete_weights(checkpoint: Path) -> None:
    """Transformers alone would make up what is missing."""
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    models.write_checksums(checkpoint)
    with pytest.raises(ValueError, match=r"lacks weights: model\.layers\.1\.mlp\.up_proj\.weight"):
        models.load(checkpoint)


def test_no_such_model(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not in the local hub cache"):
        models.load("nobody/no-such-model")
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        models.load(tmp_path)
    with pytest.raises(ValueError, match="unknown dtype 'float33'"):
        models.load(checkpoint, dtype="float33")


def test_bad_checksum_line(checkpoint: Path) -> None:
    with (checkpoint / models.CHECKSUMS).open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(ValueError, match="a line that is no checksum: 'nonsense'"):
        models.load(checkpoint)


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n"
    assert models.write_checksums(tmp_path).read_text() == expected
    assert models.write_checksums(tmp_path).read_text() == expected


def test_sites(tiny_llama: LlamaForCausalLM) -> None:
    sites = models.mlp_sites(tiny_llama)
    assert [site.mlp for site in sites] == [block.mlp for block in tiny_llama.model.layers]
    assert sites[1].up_proj is tiny_llama.model.layers[1].mlp.up_proj
    assert sites[2].act_fn is tiny_llama.model.layers[2].mlp.act_fn
    assert models.shape(tiny_llama) == {
        "intermediate": (3, 48),
        "gate": (3, 48),
        "up": (3, 48),
        "down": (3, 32),
    }
    assert len(models.norms(tiny_llama)) == 7


def test_unknown_family() -> None:
    config = GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    with pytest.raises(ValueError) as error:
        models.mlp_sites(GPT2LMHeadModel(config))
    for part in ("'gpt2'", "known: llama", "FAMILIES['gpt2']", "crane_core/models.py"):
        assert part in str(error.value)


def test_no_gated_mlp(tiny_llama: LlamaForCausalLM) -> None:
    tiny_llama.model.layers[1].mlp = nn.Linear(32, 32)
    with pytest.raises(ValueError, match=r"layer 1 \(Linear\) is not gated: it has no gate_proj"):
        models.shape(tiny_llama)


def test_adapter_that_does_not_fit(
    tiny_llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.FAMILIES, "llama", models.Family(mlp="feed_forward"))
    with pytest.raises(ValueError, match="'llama' model has no module 'feed_forward'"):
        models.mlp_sites(tiny_llama)
    monkeypatch.setitem(models.FAMILIES, "llama", models.Family(layers="model.rotary_emb"))
    with pytest.raises(ValueError, match="no decoder layers"):
        models.mlp_sites(tiny_llama)


def test_layers_of_different_width(tiny_llama: LlamaForCausalLM, make_llama: Make) -> None:
    tiny_llama.model.layers[1].mlp = make_llama(intermediate_size=40).model.layers[1].mlp
    with pytest.raises(ValueError, match=r"differ in width at 'intermediate' \(\[40, 48\]\)"):
        models.shape(tiny_llama)


def test_fingerprint(make_llama: Make) -> None:
    model: Any = make_llama()
    first = models.fingerprint(model)
    assert len(first) == 16
    assert models.fingerprint(make_llama()) == first
    assert models.fingerprint(make_llama(seed=1)) != first
    assert models.fingerprint(make_llama().to(torch.bfloat16)) != first
    with torch.no_grad():
        weight = model.model.layers[0].mlp.up_proj.weight
        weight[0, 0] = weight[0, 0].nextafter(torch.tensor(9.0))
    assert models.fingerprint(model) != first
