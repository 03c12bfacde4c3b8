import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import make_tiny_llama
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from crane_core import models
from crane_core.masking import masked
from crane_core.neurons import NeuronSet

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
    with pytest.raises(FileNotFoundError, match=r"set offline to False .* or give the folder"):
        models.load("./no/such/folder")
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / models.CHECKSUMS).unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer: expected one of tokenizer\.json"):
        models.load(checkpoint)


# --- the hub ------------------------------------------------------------------------------------

TOKEN = "hf_secret"
ANSWER: Any = SimpleNamespace(headers={}, request=None)
HUB_ERRORS: dict[str, tuple[Exception, bool, str]] = {
    "gated": (
        GatedRepoError("403", response=ANSWER),
        False,
        "'some/model' is gated on the hub, and there is no token: .* HF_TOKEN",
    ),
    "gated, with a token": (
        GatedRepoError("403", response=ANSWER),
        True,
        "is gated on the hub, and the token in HF_TOKEN has no access",
    ),
    "missing": (
        RepositoryNotFoundError("404", response=ANSWER),
        False,
        "the hub has none of that name that can be seen without a token; check the spelling",
    ),
    "missing, with a token": (
        RepositoryNotFoundError("404", response=ANSWER),
        True,
        "none of that name that the token in HF_TOKEN may see",
    ),
    "no network": (LocalEntryNotFoundError("no connection"), False, "the hub cannot be reached"),
    "offline": (OfflineModeIsEnabled("offline"), False, "the hub cannot be reached"),
    "server error": (
        HfHubHTTPError("500 Internal Server Error", response=ANSWER),
        False,
        "(?s)the hub did not give it .*500 Internal",
    ),
}


@pytest.mark.parametrize("case", HUB_ERRORS)
def test_the_hub_refuses(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What huggingface_hub raises in each case, through transformers' own handling of it."""
    error, with_token, message = HUB_ERRORS[case]
    given: list[Any] = []

    def download(*args: Any, **kwargs: Any) -> str:
        given.append((kwargs["token"], kwargs["local_files_only"]))
        raise error

    for module in ("transformers.utils.hub", "crane_core.models"):
        monkeypatch.setattr(f"{module}.is_offline_mode", lambda: False)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", download)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if with_token:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(FileNotFoundError, match=message) as raised:
        models.load("some/model", local_files_only=False)
    assert TOKEN not in str(raised.value)
    # A token stored by a login on this machine is not used.
    assert given[0] == (TOKEN if with_token else False, False)


def test_offline_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transformers.utils.hub", "crane_core.models"):
        monkeypatch.setattr(f"{module}.is_offline_mode", lambda: True)
    with pytest.raises(FileNotFoundError, match="unset the environment variable HF_HUB_OFFLINE"):
        models.load("nobody/no-such-model", local_files_only=False)


# --- checkpoints CRANE cannot work with ---------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("{", r"cannot be read, its config\.json: .*not a valid JSON"),
        ("[1]", r"its config\.json: not a valid JSON object .*\(a list\)"),
        ({"num_hidden_layers": "three"}, r"its config\.json: .*'num_hidden_layers' expected int"),
        ({"num_attention_heads": 5, "head_dim": None}, "not a multiple of the number of attention"),
        ({"model_type": "nonesuch"}, "model type `nonesuch`"),
        (
            {"model_type": "bert"},
            r"no adapter for the model family 'bert'.*crane_core/families\.py",
        ),
        ({"intermediate_size": 52}, r"down_proj\.weight has shape \(32, 48\), expected \(32, 52\)"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            r"are quantised \(gptq\): single columns .* unquantised checkpoint instead",
        ),
    ],
)
def test_config_of_the_wrong_kind(
    checkpoint: Path, changes: dict[str, Any] | str, message: str
) -> None:
    file = checkpoint / "config.json"
    if isinstance(changes, dict):
        changes = json.dumps(json.loads(file.read_text()) | changes)
    file.write_text(changes)
    (checkpoint / models.CHECKSUMS).unlink()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        models.load(checkpoint)


# --- files that are not what their name says ----------------------------------------------------

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4567\n"
PAGE = "\n<!DOCTYPE html>\n<html><body>Not found</body></html>"
#: More than the file holds: 10^18 numbers, and a header of 2^60 bytes.
CLAIMS = b'{"a": {"dtype": "F32", "shape": [1000000000, 1000000000], "data_offsets": [0, 9]}}'


@pytest.fixture
def unsigned(checkpoint: Path) -> Path:
    """A checkpoint without checksums, to be changed."""
    (checkpoint / models.CHECKSUMS).unlink()
    return checkpoint


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER.encode(), "a pointer of Git LFS, not the file itself; run `git lfs pull`"),
        (PAGE.encode(), "a web page, not the file itself"),
        (b"", "it is empty; fetch it again"),
    ],
)
def test_mistaken_files(unsigned: Path, name: str, content: bytes, message: str) -> None:
    (unsigned / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot be read, its {name}: {message}"):
        models.load(unsigned)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("how", ["utf-8-sig", "utf-16", "truncated", "deep"])
def test_json_that_is_none(unsigned: Path, name: str, how: str) -> None:
    text = (unsigned / name).read_text("utf-8")
    if how.startswith("utf"):
        (unsigned / name).write_text(text, how)
    else:
        (unsigned / name).write_text(text[: len(text) // 2] if how == "truncated" else "[" * 10**5)
    with pytest.raises(ValueError, match=f"its {name}: not a valid JSON object in UTF-8"):
        models.load(unsigned)


@pytest.mark.parametrize(
    "header", [struct.pack("<Q", len(CLAIMS)) + CLAIMS, struct.pack("<Q", 2**60)]
)
def test_weights_that_claim_more_than_the_file_holds(unsigned: Path, header: bytes) -> None:
    (unsigned / "model.safetensors").write_bytes(header)
    with pytest.raises(
        ValueError, match=r"its model.safetensors: truncated, or no safetensors file"
    ):
        models.load(unsigned)


def test_other_formats(unsigned: Path, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(FileNotFoundError, match=message):
            models.load(unsigned)

    weights = unsigned / "model.safetensors"
    weights = weights.rename(unsigned / "model-00001-of-00002.safetensors")
    refused(
        r"holds \.safetensors files, but neither model\.safetensors nor model\.safetensors\.index"
    )
    (unsigned / "consolidated.00.pth").touch()
    refused("in a format of their own")
    (unsigned / "pytorch_model.bin").touch()
    refused(r"can run code \(pickle\); in a place you trust, convert them: .*save_pretrained")
    (unsigned / "config.json").unlink()
    (unsigned / "adapter_config.json").write_text("{}")
    refused(r"config\.json is missing; it holds only an adapter \(LoRA\); merge it")


def test_an_adapter_beside_a_model(unsigned: Path) -> None:
    (unsigned / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds an adapter .* beside a model"):
        models.load(unsigned)


def test_shards(unsigned: Path) -> None:
    weights = models.fingerprint(models.load(unsigned)[0])
    (unsigned / "model.safetensors").unlink()
    make_tiny_llama(tie_word_embeddings=True).save_pretrained(unsigned, max_shard_size="20KB")
    assert len(list(unsigned.glob("*.safetensors"))) > 2
    assert models.fingerprint(models.load(unsigned)[0]) == weights
    shard = min(unsigned.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name} is missing, though .* lists it"):
        models.load(unsigned)
    (unsigned / "model.safetensors.index.json").write_text('{"weight_map": []}')
    with pytest.raises(ValueError, match="it has no weight_map"):
        models.load(unsigned)


# --- paths people have --------------------------------------------------------------------------


def test_paths(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = models.fingerprint(models.load(checkpoint)[0])
    copy = Path(shutil.copytree(checkpoint, tmp_path / "a {language} 模型 é"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (copy, f"{copy}/", f"~/{copy.name}"):
        assert models.fingerprint(models.load(path)[0]) == weights
    for file in (copy / "config.json", copy / "model.safetensors"):
        with pytest.raises(ValueError, match="is a file; give the folder of an unquantised"):
            models.load(file)
    for name in ("https://huggingface.co/a/b", " a/b", ""):
        with pytest.raises(ValueError, match="is no model; give a folder, or a name on the hub"):
            models.load(name)
    snapshot = tmp_path / "cache" / "models--a--b" / "snapshots" / "c0ffee"
    shutil.copytree(copy, snapshot)
    for parent in (snapshot.parent, snapshot.parent.parent):
        with pytest.raises(FileNotFoundError, match=r"such as '.*/snapshots/c0ffee': give one"):
            models.load(parent)


# --- code of a checkpoint -----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["config.json", "tokenizer"])
def test_no_code_of_a_checkpoint_is_run(
    unsigned: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked whether to."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    marker = unsigned / "was-run"
    code = f"open({str(marker)!r}, 'w').close()"
    (unsigned / "own.py").write_text(code)
    if what == "config.json":
        about = {"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}
        (unsigned / "config.json").write_text(json.dumps(about))
    else:
        about = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.T", None]}}
        (unsigned / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(
        ValueError, match=f"its {what}: it has code of its own .* never runs"
    ) as told:
        models.load(unsigned)
    assert not marker.exists() and "trust_remote_code" not in str(told.value)


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_no_kernel_that_a_checkpoint_names(unsigned: Path, name: str) -> None:
    config = json.loads((unsigned / "config.json").read_text()) | {name: "somebody/kernel"}
    (unsigned / "config.json").write_text(json.dumps(config))
    assert models.read_config(unsigned)._attn_implementation == "sdpa"
    assert models.load(unsigned)[0].config._attn_implementation == "sdpa"


# --- weights and tokenizers that are not the configuration's ------------------------------------


def edit_weights(folder: Path, **tensors: Tensor | None) -> None:
    found = load_file(folder / "model.safetensors")
    found = {n: t for n, t in (found | tensors).items() if t is not None}
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


def test_unused_weights(unsigned: Path) -> None:
    """With fewer layers in config.json it would be another model, and transformers only warns."""
    edit_weights(unsigned, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    models.load(unsigned)  # old checkpoints keep it; it is computed
    config = json.loads((unsigned / "config.json").read_text())
    (unsigned / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(
        ValueError, match=r"no place for: model\.layers\.2\.input_layernorm\.weight"
    ):
        models.load(unsigned)


def test_weights_that_are_not_finite(unsigned: Path) -> None:
    for value in (torch.nan, torch.inf):
        edit_weights(unsigned, **{"model.norm.weight": torch.full((32,), value)})
        with pytest.raises(
            ValueError, match=r"not finite as torch\.float32.*: model\.norm\.weight"
        ):
            models.load(unsigned)


def test_a_tokenizer_larger_than_the_model(unsigned: Path) -> None:
    def tokenizer(size: int, **special: str) -> None:
        made = words(*(f"w{i}" for i in range(size)), unk_token="w0", eos_token="w2")
        made.add_special_tokens(special)
        made.save_pretrained(unsigned)

    tokenizer(65)
    with pytest.raises(ValueError, match=r"tokens up to number 64, but .* embeddings for 64"):
        models.load(unsigned)
    tokenizer(64, bos_token="<s>")
    with pytest.raises(ValueError, match=r"tokens up to number 64, but .* embeddings for 64"):
        models.load(unsigned)
    # Padding never reaches an embedding that matters; what images need is never met in text.
    tokenizer(64, pad_token="[PAD]")
    assert models.load(unsigned)[1].pad_token == "w2"


def test_sentencepiece_alone(unsigned: Path) -> None:
    (unsigned / "tokenizer.json").unlink()
    (unsigned / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02")
    about = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>"}
    (unsigned / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(
        ValueError, match=r"tokenizer.model is a SentencePiece model, .*pip install"
    ):
        models.load(unsigned)


# --- dtype and device ---------------------------------------------------------------------------


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, bfloat16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert models.torch_device("auto") == models.torch_device("cpu") == torch.device("cpu")
    with pytest.raises(
        ValueError, match=r"'cuda', but PyTorch finds no CUDA GPU .* 'cpu' or 'auto'"
    ):
        models.torch_device("cuda")
    gpus(monkeypatch, 2)
    assert models.torch_device("auto") == torch.device("cuda")
    assert models.torch_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"'cuda:2', but PyTorch finds 2 CUDA GPU\(s\), counted"):
        models.torch_device("cuda:2")
    for name in ("gpu", "mps", "", "meta"):
        with pytest.raises(ValueError, match=f"unknown device {name!r}; use 'cpu', 'cuda'"):
            models.torch_device(name)


def test_dtypes(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("float33", "int8", "Tensor"):
        with pytest.raises(ValueError, match=f"unknown dtype {name!r}; use 'float32', 'bfloat16'"):
            models.load(checkpoint, dtype=name)
    with pytest.raises(ValueError, match=r"'float16', .* use 'float32' or 'bfloat16' on a CPU"):
        models.load(checkpoint, dtype="float16")
    gpus(monkeypatch, 1, bfloat16=False)
    with pytest.raises(ValueError, match="'bfloat16', which Old GPU cannot compute in"):
        models.load(checkpoint, dtype="bfloat16", device="cuda")


# --- tokenizers ---------------------------------------------------------------------------------


def words(*names: str, **special: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.mark.parametrize(
    ("special", "padding"),
    [
        ({"eos_token": "w2", "unk_token": "w0"}, "w2"),
        ({"unk_token": "w0"}, "w0"),
        ({"eos_token": "w2", "pad_token": "w5"}, "w5"),
    ],
)
def test_tokenizer_without_padding(checkpoint: Path, special: dict[str, str], padding: str) -> None:
    words(*(f"w{i}" for i in range(64)), **special).save_pretrained(checkpoint)
    models.write_checksums(checkpoint)
    _, tokenizer = models.load(checkpoint)
    assert tokenizer.pad_token == padding
    assert len(tokenizer) == 64
    assert tokenizer.bos_token_id is None


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


def test_a_tokenizer_that_cuts_at_random_does_not(checkpoint: Path) -> None:
    """A BPE with dropout, as some were trained with: each call would give other tokens."""
    vocabulary = {sign: number for number, sign in enumerate(("<pad>", "a", "b", "ab", "abab"))}
    made = Tokenizer(BPE(vocabulary, [("a", "b"), ("ab", "ab")], dropout=0.5))
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>").save_pretrained(checkpoint)
    models.write_checksums(checkpoint)
    _, tokenizer = models.load(checkpoint)
    assert {tuple(tokenizer("abab" * 5)["input_ids"]) for _ in range(20)} == {(4,) * 5}
