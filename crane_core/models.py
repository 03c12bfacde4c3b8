"""Models as they are loaded, told apart and checked (§4.1); their places are in `families`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    is_offline_mode,
)

from crane_core.families import FAMILIES as FAMILIES
from crane_core.families import UNQUANTISED, adapter, caps_attention
from crane_core.families import Family as Family
from crane_core.families import caps_logits as caps_logits
from crane_core.families import check_length as check_length
from crane_core.families import decoder as decoder
from crane_core.families import family as family
from crane_core.families import linear_head as linear_head
from crane_core.families import mlp_sites as mlp_sites
from crane_core.families import norms as norms
from crane_core.families import shape as shape
from crane_core.families import stream_norms as stream_norms
from crane_core.files import replacing
from crane_core.gguf import gguf_config, gguf_file, gguf_model, gguf_tokenizer

CHECKSUMS = "SHA256SUMS"
#: What a model can be loaded in. float16 is for GPUs only.
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits of a SHA-256 over names, shapes, types and bytes of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: str | os.PathLike[str]) -> Path:
    """Write `SHA256SUMS` for all files of `folder` (`sha256sum -c` reads it too) and return it."""
    folder = Path(folder)
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name != CHECKSUMS)
    target = folder / CHECKSUMS
    lines = "".join(f"{_sha256(file)}  {file.name}\n" for file in files)
    with replacing(target) as draft:
        draft.write_text(lines, encoding="utf-8")
    return target


def verify_checksums(folder: str | os.PathLike[str]) -> None:
    """Check every file listed in `folder`'s `SHA256SUMS`.

    Raises FileNotFoundError for a missing file, ValueError for one whose content differs and for a
    line that is no checksum.
    """
    folder = Path(folder)
    advice = "fetch the folder again (for the testbed: git checkout, or `make testbed`)"
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        if len(expected) != 64 or not name:
            raise ValueError(f"{folder / CHECKSUMS} has a line that is no checksum: {line!r}")
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, though {CHECKSUMS} lists it; {advice}")
        if _sha256(path) != expected:
            problem = f"truncated or altered: its SHA-256 is not the one in {CHECKSUMS}"
            raise ValueError(f"{path} is {problem}; {advice}")


# --- loading --------------------------------------------------------------------------------------


def torch_device(device: str) -> torch.device:
    """The device of that name: "cpu", "cuda", "cuda:<number>", or "auto", a GPU if there is one.

    Raises ValueError for another name and for a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise ValueError(
            f"unknown device {device!r}; use 'cpu', 'cuda', 'cuda:<number>' or 'auto' (a GPU if "
            "there is one)"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        there = f"{count} CUDA GPU(s), counted from 0" if count else "no CUDA GPU here"
        raise ValueError(
            f"device is {device!r}, but PyTorch finds {there} (this build is {torch.__version__}); "
            "use device 'cpu' or 'auto', or install PyTorch with CUDA"
        )
    return found


def _torch_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The type of that name, if the device can compute in it; ValueError if not."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; use {', '.join(map(repr, DTYPES))}")
    if dtype == "float16" and device.type == "cpu":
        raise ValueError(
            "dtype is 'float16', in which a CPU is slow and activations can overflow; use "
            "'float32' or 'bfloat16' on a CPU"
        )
    if (
        dtype == "bfloat16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ValueError(
            f"dtype is 'bfloat16', which {torch.cuda.get_device_name(device)} cannot compute in; "
            "use 'float32', or 'float16' if its range is enough for the model"
        )
    return DTYPES[dtype]


def _because_of(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error is of that kind or was raised because of one."""
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _not_found(path: str, error: Exception, local_files_only: bool) -> FileNotFoundError:
    """Why a model that is no folder could not be had from the hub or its cache, and what to do."""
    token = "HF_TOKEN" in os.environ
    nothing = f"no model {path!r}: it is no folder here"
    if _because_of(error, GatedRepoError):
        why = (
            "the token in HF_TOKEN has no access to it: accept its terms on its page with that "
            "account"
            if token
            else "there is no token: accept its terms on its page, then set the environment "
            "variable HF_TOKEN to a token of that account"
        )
        return FileNotFoundError(f"{path!r} is gated on the hub, and {why}")
    if _because_of(error, RepositoryNotFoundError):
        seen = "the token in HF_TOKEN may see" if token else "can be seen without a token"
        why = f", and the hub has none of that name that {seen}; check the spelling (owner/name), "
        why += "or set HF_TOKEN for a private one"
    elif local_files_only or is_offline_mode():
        why = ", and not in the local hub cache; "
        how = "unset the environment variable HF_HUB_OFFLINE"
        how = "set offline to False (local_files_only=False)" if local_files_only else how
        why += f"{how} to download it, or give the folder of a checkpoint"
        if not _because_of(error, LocalEntryNotFoundError):  # such as a file the cache lacks
            why += f" ({error})"
    elif _because_of(error, LocalEntryNotFoundError) or _because_of(error, ConnectionError):
        why = ", not in the local hub cache, and the hub cannot be reached; check the network, or "
        why += "give the folder of a checkpoint"
    else:
        why = f", and the hub did not give it ({error})"
    return FileNotFoundError(nothing + why)


#: One of these holds a tokenizer's vocabulary.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_INDEX = "model.safetensors.index.json"
_JSON_FILES = [f"{name}.json" for name in ("config", "generation_config", "tokenizer", "vocab")]
_JSON_FILES += ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
#: How files begin that are not what their name says.
_MISTAKEN = {
    (b"version https://git-lfs",): "a pointer of Git LFS, not the file itself; run `git lfs pull`",
    (b"<!doctype", b"<html"): "a web page, not the file itself; download the file",
}
#: Files of other formats, and what to do about them.
_OTHERS = {
    "adapter_config.json": "only an adapter (LoRA); merge it into its model with peft's "
    "merge_and_unload(), then save_pretrained, and give that folder",
    "*.bin": "weights of an older format that can run code (pickle); in a place you trust, convert "
    "them: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new folder), and copy the "
    "tokenizer's files",
    "*.pt*": "weights in a format of their own (.pt, .pth); take the checkpoint that the hub has "
    "in transformers' format",
    "*.safetensors": f".safetensors files, but neither model.safetensors nor {_INDEX}",
}


def _unreadable(file: Path, why: object) -> ValueError:
    return ValueError(f"the checkpoint in {file.parent} cannot be read, its {file.name}: {why}")


def _genuine(file: Path) -> Any:
    """What is in a JSON file of a checkpoint, None in another; ValueError for mistaken ones."""
    with file.open("rb") as opened:
        start = opened.read(64).lstrip().lower()
    if not start:
        raise _unreadable(file, "it is empty; fetch it again")
    for beginning, what in _MISTAKEN.items():
        if start.startswith(beginning):
            raise _unreadable(file, what)
    try:
        if file.suffix == ".json":  # which transformers reads as UTF-8
            content = json.loads(file.read_text("utf-8"))
            if not isinstance(content, dict):
                raise ValueError(f"a {type(content).__name__}")
            return content
    except (ValueError, RecursionError) as error:
        raise _unreadable(file, f"not a valid JSON object in UTF-8 ({error})") from error
    try:
        if file.suffix == ".safetensors":
            safe_open(os.fspath(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, f"truncated, or no safetensors file ({error})") from error
    return None


def _look_over(folder: Path, lacking: str) -> None:
    """Raise FileNotFoundError for a folder that lacks what it needs: what it holds instead."""
    held = [what for pattern, what in _OTHERS.items() if any(folder.glob(pattern))]
    inner = sorted(f.parent for deep in ("*", "*/*") for f in folder.glob(f"{deep}/config.json"))
    if lacking.endswith("config.json is missing") and inner:
        held = [f"folders of checkpoints, such as {str(inner[0])!r}: give one of those"]
    raise FileNotFoundError(f"{folder} holds no {'; it holds '.join([lacking, *held[:1]])}")


def _check_weights(folder: Path) -> None:
    """Raise unless the weights of a folder are there, whole and safetensors."""
    files = [folder / "model.safetensors"]
    if not files[0].is_file():
        if not (folder / _INDEX).is_file():
            _look_over(folder, "weights: there is no .safetensors file named model.safetensors")
        shards = _genuine(folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise _unreadable(folder / _INDEX, "it has no weight_map")
        files = sorted({folder / str(name) for name in shards.values()})
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing, though {_INDEX} lists it; fetch it again")
        _genuine(file)


@contextmanager
def _reading(path: str, what: str, local_files_only: bool) -> Iterator[None]:
    """One clear error for whatever transformers raises while it reads `what` of a model."""
    try:
        yield
    except Exception as error:
        of_the_hub = isinstance(error, OSError) or _because_of(error, OSError)
        if not Path(path).exists() and of_the_hub:
            raise _not_found(path, error, local_files_only) from error
        kind = "GGUF model" if str(path).endswith(".gguf") else "model"
        where = f"checkpoint in {path}" if Path(path).is_dir() else f"{kind} {path!r}"
        if "trust_remote_code" in str(error):
            known = ", ".join(sorted(FAMILIES))
            code = "it has code of its own (auto_map), which CRANE never runs"
            error = ValueError(f"{code}; take a checkpoint of the families {known} without")
        elif "tiktoken" in str(error):  # what transformers blames for any tokenizer.model
            error = ValueError(
                "tokenizer.model is a SentencePiece model, and there is no tokenizer.json: `pip "
                "install sentencepiece protobuf`, or save the tokenizer where these are "
                "(AutoTokenizer.from_pretrained(folder).save_pretrained(folder))"
            )
        raise ValueError(f"the {where} cannot be read, its {what}: {error}") from error


def _how(local_files_only: bool) -> dict[str, Any]:
    """How transformers reads: without code of a checkpoint, and with no token that a login stored
    on this machine, but that of the environment."""
    token = os.environ.get("HF_TOKEN") or False
    return {"local_files_only": local_files_only, "token": token, "trust_remote_code": False}


def _place(path: str | os.PathLike[str]) -> str:
    """A path with `~` written out, or a name on the hub; an error for what can be no model."""
    path = os.path.expanduser(os.fspath(path))
    if os.path.isfile(path) and not gguf_file(path):
        raise ValueError(
            f"{path!r} is a file; give the folder of an unquantised checkpoint (config.json, "
            "model.safetensors, tokenizer.json), a file in GGUF (.gguf), or a name on the hub"
        )
    if not path or "://" in path or (path != path.strip() and not os.path.isdir(path)):
        raise ValueError(f"{path!r} is no model; give a folder, or a name on the hub, owner/name")
    return path


def read_config(path: str | os.PathLike[str], local_files_only: bool = True) -> PreTrainedConfig:
    """The configuration of a model that CRANE can work with, before any weights are fetched.

    Of a folder with `SHA256SUMS` every file listed there is verified first. No code of a checkpoint
    is run. Raises FileNotFoundError if there is no such model, a file of it is missing, or the hub
    does not give it, and ValueError for files that are altered or not what their name says, a
    configuration that is damaged or no decoder's, an unknown family, and quantised weights.
    """
    path = _place(path)
    folder, file = Path(path), gguf_file(path)
    if folder.is_dir():
        if (folder / CHECKSUMS).is_file():
            verify_checksums(folder)
        if not file and not (folder / "config.json").is_file():
            _look_over(folder, "checkpoint: config.json is missing")
        if (folder / "adapter_config.json").is_file():
            what = "an adapter (adapter_config.json) beside a model; merge it in, or give the model"
            raise ValueError(f"{folder} holds {what} alone")
        for name in _JSON_FILES:
            if (folder / name).is_file():
                _genuine(folder / name)
    if file:
        _genuine(file)
    with _reading(path, file.name if file else "config.json", local_files_only):
        how = _how(local_files_only)
        config = gguf_config(file) if file else AutoConfig.from_pretrained(path, **how)
    adapter(config)
    # What the checkpoint names may be a kernel to be downloaded, which is code.
    config._attn_implementation = "eager" if caps_attention(config) else "sdpa"
    if quantisation := config.to_dict().get("quantization_config"):
        raise ValueError(
            f"the weights of {path!r} are quantised "
            f"({quantisation.get('quant_method', 'unknown method')}): single columns of packed "
            f"weights cannot be masked; {UNQUANTISED}"
        )
    return config


def load(
    path: str | os.PathLike[str],
    dtype: str = "float32",
    device: str = "cpu",
    local_files_only: bool = True,
) -> tuple[PreTrainedModel, Any]:
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    path : a folder with a checkpoint, a file in GGUF (or a folder with one and no safetensors),
        whose weights are dequantised, or a name on the Hugging Face hub.
    dtype : "float32", "bfloat16", or, on a GPU, "float16".
    device : where the weights go: "cpu", "cuda", "cuda:<number>", or "auto", a GPU if there is one.
    local_files_only : whether to stay offline (then a hub name is looked for in the local cache).

    Returns
    -------
    The model in evaluation mode, and the tokenizer. A tokenizer without a padding token pads with
    its end-of-sequence token, which changes nothing because padding is masked everywhere; one
    without a beginning-of-sequence token (Qwen's) begins no text with one.

    Only safetensors are read, and no code of a checkpoint is run. If the folder holds `SHA256SUMS`,
    every file it lists is verified first. The hub is given the token in the environment variable
    HF_TOKEN and no other.

    Raises FileNotFoundError if there is no such checkpoint, a file of it is missing, or the hub
    does not give it (which of these, and what to do), and ValueError if its content is truncated,
    altered, incomplete, more than the model has a place for, not finite, quantised, of an unknown
    family or not what its name says, for a tokenizer that numbers tokens beyond the embeddings, and
    for a type or device that is unknown or not to be had here.
    """
    target = torch_device(device)
    torch_dtype = _torch_dtype(dtype, target)
    config, path = read_config(path, local_files_only), _place(path)
    file, tokenizer = gguf_file(path), load_tokenizer(path, local_files_only)
    if Path(path).is_dir() and not file:
        _check_weights(Path(path))

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    how = {"dtype": torch_dtype, "config": config, "output_loading_info": True}
    how |= {"ignore_mismatched_sizes": True, "use_safetensors": True, **_how(local_files_only)}
    try:
        with _reading(path, file.name if file else "weights", local_files_only):
            read: Any = gguf_model if file else AutoModelForCausalLM.from_pretrained
            model, loading = read(file or path, **how)
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    _check_loaded(model, loading, path)
    rows = len(model.get_input_embeddings().weight)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    numbers = {*tokenizer.get_vocab().values()} - special | ends
    if max(numbers, default=0) >= rows:
        raise ValueError(
            f"the tokenizer of {path!r} is not its model's: it has tokens up to number "
            f"{max(numbers)}, but the model has embeddings for {rows}"
        )
    # Without one, lm-eval would add a token that has no embedding.
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return model.to(target).eval(), tokenizer


def load_tokenizer(path: str | os.PathLike[str], local_files_only: bool = True) -> Any:
    """The tokenizer of a model; a GGUF file's own, unless its folder is given and has another.

    Raises FileNotFoundError if there is none, and ValueError if it cannot be read.
    """
    path = _place(path)
    folder, file = Path(path), gguf_file(path)
    own = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    if folder.is_dir() and not (own or file):
        raise FileNotFoundError(
            f"{folder} holds no tokenizer: expected one of {', '.join(_TOKENIZER_FILES)}; copy "
            "the files of the tokenizer the model was trained with"
        )
    with _reading(path, "tokenizer", local_files_only):
        if file and not own:
            return gguf_tokenizer(file)
        config = gguf_config(file) if file else None
        tokenizer = AutoTokenizer.from_pretrained(path, config=config, **_how(local_files_only))
    words: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if getattr(words, "dropout", None):  # meant for training: another cut of a text at each call
        words.dropout = None
    return tokenizer


def _check_loaded(model: PreTrainedModel, loading: dict[str, Any], path: str) -> None:
    """Raise ValueError unless all weights of a checkpoint, and no others, are the model's."""
    if loading["mismatched_keys"]:
        name, found, expected = min(loading["mismatched_keys"])
        raise ValueError(
            f"the weights of {path!r} are not those of its configuration: {name} has shape "
            f"{tuple(found)}, expected {tuple(expected)} "
            f"({len(loading['mismatched_keys'])} such weight(s))"
        )
    # Transformers would fill what a checkpoint lacks with random numbers, and only warn.
    for problem, names in {
        "lacks weights": loading["missing_keys"],
        "has weights that config.json has no place for": loading["unexpected_keys"],
        f"has weights that are not finite as {model.dtype} (in a larger dtype, they may be)": [
            name for name, weight in model.named_parameters() if not weight.isfinite().all()
        ],
    }.items():
        if names:
            some = ", ".join(sorted(names)[:5]) + f" ({len(names)} in all)"
            raise ValueError(f"the checkpoint {path!r} {problem}: {some}")
