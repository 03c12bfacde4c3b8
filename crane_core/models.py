"""Models as they are loaded, told apart and checked (§4.1); their places are in `families`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    is_offline_mode,
)

from crane_core.families import (
    FAMILIES,
    UNQUANTISED,
    Family,
    GatedMLP,
    adapter,
    caps_attention,
    caps_logits,
    decoder,
    family,
    mlp_sites,
    norms,
    shape,
    stream_norms,
)
from crane_core.files import replacing

__all__ = [
    "CHECKSUMS",
    "DTYPES",
    "FAMILIES",
    "Family",
    "GatedMLP",
    "caps_attention",
    "caps_logits",
    "decoder",
    "family",
    "fingerprint",
    "load",
    "mlp_sites",
    "norms",
    "read_config",
    "shape",
    "stream_norms",
    "torch_device",
    "verify_checksums",
    "vocabulary_difference",
    "write_checksums",
]

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
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        if len(expected) != 64 or not name:
            raise ValueError(f"{folder / CHECKSUMS} has a line that is no checksum: {line!r}")
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, though {CHECKSUMS} lists it; fetch the folder again "
                "(for the testbed: git checkout, or `make testbed`)"
            )
        if _sha256(path) != expected:
            raise ValueError(
                f"{path} is truncated or altered: its SHA-256 is not the one in {CHECKSUMS}; "
                "fetch the folder again (for the testbed: git checkout, or `make testbed`)"
            )


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
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {device!r}, but PyTorch finds no CUDA GPU here (this build is "
            f"{torch.__version__}); use device 'cpu' or 'auto', or install PyTorch with CUDA"
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device is {device!r}, but PyTorch finds {torch.cuda.device_count()} CUDA GPU(s), "
            "counted from 0"
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
    if _because_of(error, GatedRepoError):
        problem = f"{path!r} is gated on the hub, and " + (
            "the token in HF_TOKEN has no access to it: accept its terms on its page with the "
            "account that the token belongs to"
            if token
            else "there is no token: accept its terms on its page, then set the environment "
            "variable HF_TOKEN to a token of that account"
        )
    elif _because_of(error, RepositoryNotFoundError):
        problem = (
            f"no model {path!r}: it is no folder here, and the hub has none of that name that "
            + ("the token in HF_TOKEN may see" if token else "can be seen without a token")
            + "; check the spelling (owner/name), or set HF_TOKEN for a private one"
        )
    elif local_files_only or is_offline_mode():
        allow = (
            "set offline to False (local_files_only=False) to download it"
            if local_files_only
            else "unset the environment variable HF_HUB_OFFLINE to download it"
        )
        problem = (
            f"no model {path!r}: it is no folder here, and not in the local hub cache; {allow}, "
            "or give the folder of a checkpoint"
        )
        if not _because_of(error, LocalEntryNotFoundError):  # such as a file the cache lacks
            problem += f" ({error})"
    elif _because_of(error, LocalEntryNotFoundError) or _because_of(error, ConnectionError):
        problem = (
            f"no model {path!r}: it is no folder here, not in the local hub cache, and the hub "
            "cannot be reached; check the network, or give the folder of a checkpoint"
        )
    else:
        problem = f"no model {path!r}: it is no folder here, and the hub did not give it ({error})"
    return FileNotFoundError(problem)


#: One of these holds a tokenizer's vocabulary.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

#: What transformers raises for files that are missing, damaged or not what they should be.
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    SafetensorError,
)
#: transformers' configurations raise this one, too, and hand on no class to catch it by.
_ILL_TYPED = "StrictDataclassError"


@contextmanager
def _reading(path: str, what: str, local_files_only: bool) -> Iterator[None]:
    """One clear error for what transformers raises while it reads `what` of a model."""
    try:
        yield
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not isinstance(error, _UNREADABLE) and _ILL_TYPED not in kinds:
            raise
        of_the_hub = isinstance(error, OSError) or _because_of(error, OSError)
        if not Path(path).is_dir() and of_the_hub:
            raise _not_found(path, error, local_files_only) from error
        where = f"the checkpoint in {path}" if Path(path).is_dir() else f"the model {path!r}"
        raise ValueError(f"{where} cannot be read, its {what}: {error}") from error


def _token() -> str | bool:
    """The hub's token: that of the environment, never one that a login stored on this machine."""
    return os.environ.get("HF_TOKEN") or False


def read_config(path: str | os.PathLike[str], local_files_only: bool = True) -> PreTrainedConfig:
    """The configuration of a model that CRANE can work with, before any weights are fetched.

    Of a folder with `SHA256SUMS` every file listed there is verified first. Raises
    FileNotFoundError if there is no such model, a file of it is missing, or the hub does not give
    it, and ValueError for files that are altered, a configuration that is damaged or no decoder's,
    an unknown family, and quantised weights.
    """
    folder = Path(path)
    if folder.is_dir():
        if (folder / CHECKSUMS).is_file():
            verify_checksums(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} holds no checkpoint: config.json is missing")
    with _reading(str(path), "config.json", local_files_only):
        config = AutoConfig.from_pretrained(
            str(path), local_files_only=local_files_only, token=_token()
        )
    adapter(config.model_type)
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is not None:
        method = (
            quantisation.get("quant_method")
            if isinstance(quantisation, dict)
            else getattr(quantisation, "quant_method", None)
        )
        raise ValueError(
            f"the weights of {str(path)!r} are quantised ({method or 'unknown method'}): single "
            f"columns of packed weights cannot be masked; {UNQUANTISED}"
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
    path : a folder with a checkpoint, or a name on the Hugging Face hub.
    dtype : "float32", "bfloat16", or, on a GPU, "float16".
    device : where the weights go: "cpu", "cuda", "cuda:<number>", or "auto", a GPU if there is one.
    local_files_only : whether to stay offline (then a hub name is looked for in the local cache).

    Returns
    -------
    The model in evaluation mode, and the tokenizer. A tokenizer without a padding token pads with
    its end-of-sequence token, which changes nothing because padding is masked everywhere; one
    without a beginning-of-sequence token (Qwen's) begins no text with one.

    Only safetensors are read. If the folder holds `SHA256SUMS`, every file it lists is verified
    first. The hub is given the token in the environment variable HF_TOKEN and no other.

    Raises FileNotFoundError if there is no such checkpoint, a file of it is missing, or the hub
    does not give it (which of these, and what to do), and ValueError if its content is truncated,
    altered, incomplete, quantised or of an unknown family, and for a type or device that is unknown
    or not to be had here.
    """
    target = torch_device(device)
    torch_dtype = _torch_dtype(dtype, target)
    config = read_config(path, local_files_only)
    folder = Path(path)
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            raise FileNotFoundError(f"{folder} holds no weights: there is no .safetensors file")
        if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise FileNotFoundError(
                f"{folder} holds no tokenizer: expected one of {', '.join(_TOKENIZER_FILES)}; copy "
                "the files of the tokenizer the model was trained with"
            )

    options: dict[str, Any] = {"local_files_only": local_files_only, "token": _token()}
    attention = {"attn_implementation": "eager"} if caps_attention(config) else {}
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with _reading(str(path), "weights", local_files_only):
            model, loading = AutoModelForCausalLM.from_pretrained(
                str(path),
                dtype=torch_dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **attention,
                **options,
            )
        with _reading(str(path), "tokenizer", local_files_only):
            tokenizer = AutoTokenizer.from_pretrained(str(path), **options)
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    # Transformers would fill what a checkpoint lacks with random numbers and only warn.
    if loading["missing_keys"]:
        raise ValueError(
            f"the checkpoint {str(path)!r} lacks weights: "
            + ", ".join(sorted(loading["missing_keys"]))
        )
    if loading["mismatched_keys"]:
        name, found, expected = min(loading["mismatched_keys"])
        raise ValueError(
            f"the weights of {str(path)!r} are not those of its config.json: {name} has shape "
            f"{tuple(found)}, expected {tuple(expected)} "
            f"({len(loading['mismatched_keys'])} such weight(s))"
        )
    if tokenizer.pad_token_id is None:  # or lm-eval would add a token that has no embedding
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    words: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if getattr(words, "dropout", None):  # meant for training: another cut of a text at each call
        words.dropout = None
    return model.to(target).eval(), tokenizer


def vocabulary_difference(
    tokenizer: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase
) -> str:
    """How `other`'s vocabulary differs from `tokenizer`'s, in words; "" if it does not.

    Tokens that `other` adds to a vocabulary otherwise the same (the marks of a chat template) are
    no difference: no text that `tokenizer` encodes is encoded otherwise for them.
    """
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    added = other.get_added_vocab()
    kinds = {
        "lacks": [token for token in ours if token not in theirs],
        "has besides": [token for token in theirs if token not in ours and token not in added],
        "numbers otherwise": [
            token for token, number in ours.items() if theirs.get(token, number) != number
        ],
    }
    differences = [
        f"{kind} {len(tokens)} token(s), such as {min(tokens, key=str)!r}"
        for kind, tokens in kinds.items()
        if tokens
    ]
    sizes = f"{len(ours)} and {len(theirs)} tokens: the other "
    return sizes + ", ".join(differences) if differences else ""
