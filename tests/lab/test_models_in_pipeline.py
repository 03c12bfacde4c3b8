"""Models as the pipeline loads and keys them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from crane_core import models
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import Store


def test_settings_reach_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load, given = models.load, []

    def loading(path: str, *args: Any, **kwargs: Any) -> Any:
        given.append((path, *args, kwargs))
        return load(path, *args, **kwargs)

    monkeypatch.setattr(models, "load", loading)
    store = Store(tmp_path)
    short = Pipeline(Settings(dtype="bfloat16", device="auto", offline=False), store)
    assert given == [("data/testbed/base", "bfloat16", "auto", {"local_files_only": False})]
    assert short.model.dtype == torch.bfloat16
    # What is stored for one type is not taken for another's.
    key = Pipeline(Settings(), store).relevance_key("en")
    assert key != short.relevance_key("en")


def test_a_chat_model_with_another_vocabulary(tmp_path: Path) -> None:
    base = Pipeline(Settings(), Store(tmp_path / "store"))
    folder = shutil.copytree("data/testbed/chat", tmp_path / "chat")
    (folder / models.CHECKSUMS).unlink(missing_ok=True)
    tokenizer = (folder / "tokenizer.json").read_text("utf-8")
    content = json.loads(tokenizer)
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError, match=r"another vocabulary .* numbers otherwise 2 token\(s\)"):
        base.on_chat(str(folder))
