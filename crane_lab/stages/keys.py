"""What a stored result depends on besides code: the model, as far as it changes what comes out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core import models
from crane_lab.store.files import canonical, digest_of, file_sha256

if TYPE_CHECKING:  # values of settings are in the keys themselves
    from crane_lab.settings import Settings

#: Entries of a configuration that change no forward pass: where it lies, and what wrote it.
_NO_MATTER = {
    "_name_or_path",
    "architectures",
    "dtype",  # of the file; the model's own is in the key
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def _plain(value: Any) -> Any:
    """A configuration as JSON, without what changes nothing."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if k not in _NO_MATTER}
    return json.loads(json.dumps(value, default=str))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of how texts become tokens, and conversations texts."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    how: Any = sorted(tokenizer.get_vocab().items())
    if fast is not None:
        # Padding and truncation are set by calls, not by the checkpoint.
        how = {k: v for k, v in json.loads(fast.to_str()).items() if k not in _SET_BY_CALLS}
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    said = [how, special, getattr(tokenizer, "chat_template", None)]
    # Not always in the tokenizer's file: what opens and closes a text, and how tokens become text.
    said += [getattr(tokenizer, name, None) for name in _ATTRIBUTES]
    if fast is None:  # merges and scores are in files of its own
        with TemporaryDirectory() as folder:
            said += [file_sha256(Path(file)) for file in tokenizer.save_vocabulary(folder)]
    return digest_of(json.dumps(said, sort_keys=True, default=str))


_SET_BY_CALLS = {"padding", "truncation"}
_ATTRIBUTES = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "clean_up_tokenization_spaces",
    "legacy",
    "split_special_tokens",
)


_weights: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def weights_of(model: PreTrainedModel) -> str:
    """`models.fingerprint` of a model, taken once: nothing here changes weights for good."""
    if model not in _weights:
        _weights[model] = models.fingerprint(model)
    return _weights[model]


def model_key(model: PreTrainedModel) -> dict[str, str]:
    """What a forward pass depends on: weights, configuration, type, attention, and libraries."""
    config = model.config
    return {
        "libraries": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "weights": weights_of(model),
        "config": digest_of(canonical(_plain(config.to_dict()))),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": str(config._attn_implementation),
    }


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory with its tokenizer, and the key of both, made once."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def from_settings(cls, settings: Settings) -> Loaded:
        """Load what the settings name; raises as `models.load`."""
        loaded = models.load(
            settings.model, settings.dtype, settings.device, local_files_only=settings.offline
        )
        return cls(*loaded)

    @cached_property
    def key(self) -> dict[str, str]:
        """`model_key`, and the tokenizer: what a result depends on."""
        return {**model_key(self.model), "tokenizer": tokenizer_digest(self.tokenizer)}

    @property
    def lasting_key(self) -> dict[str, str]:
        """`key` without the libraries' versions, for records of results that are shipped."""
        return {name: value for name, value in self.key.items() if name != "libraries"}

    @cached_property
    def generation_key(self) -> dict[str, Any]:
        """`key`, and the checkpoint's settings for generation, which say what ends a text."""
        settings = self.model.generation_config.to_dict()
        return {**self.key, "generation": digest_of(canonical(_plain(settings)))}
