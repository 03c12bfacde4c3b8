"""Held-out perplexity."""

import math

import numpy as np
import pytest
import torch
from made_up_tasks import MODEL, TOKENIZER, make_model, prepared, tasks
from torch import Tensor

from crane_core import families
from crane_lab.engines import perplexity as module
from crane_lab.engines import vocabulary
from crane_lab.engines.multiple_choice import (
    Prepared,
    evaluate,
)
from crane_lab.engines.perplexity import perplexity

__all__ = ["prepared", "tasks"]  # fixtures


@pytest.fixture(scope="module")
def windows() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(2, len(TOKENIZER), (7, 11), generator=generator)


@pytest.mark.parametrize(("rows", "logits"), [(1024, 2**23), (3, 2**23), (1024, 2000), (7, 50)])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_perplexity_is_the_models_own_loss(
    windows: Tensor, rows: int, logits: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOGIT_ROWS", rows)
    monkeypatch.setattr(vocabulary, "AT_ONCE", logits)
    result = perplexity(MODEL, windows, batch_size)
    with torch.no_grad():
        whole = MODEL(windows, labels=windows).loss
        each = torch.stack([MODEL(row[None], labels=row[None]).loss for row in windows])
    assert result.loss == pytest.approx(whole.item(), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(whole.item()), rel=1e-5)
    torch.testing.assert_close(result.losses, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_vocabulary_in_pieces_is_the_whole_of_it(
    dtype: torch.dtype, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 101, bias=bias, dtype=dtype)
    states, targets = 30 * torch.randn(5, 8, dtype=dtype), torch.tensor([0, 100, 49, 50, 7])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            head(states).float(), targets, reduction="none"
        )
        for logits in (5 * 50, 5 * 10, 5, 1):
            monkeypatch.setattr(vocabulary, "AT_ONCE", logits)
            got = module._head_losses(head, states, targets)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_perplexity_where_logits_are_more_than_a_product(
    windows: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = perplexity(MODEL, windows)
    monkeypatch.setattr(families, "linear_head", lambda model: False)
    got = perplexity(MODEL, windows)
    torch.testing.assert_close(got.losses, expected.losses, rtol=1e-5, atol=1e-5)


def test_bad_windows(windows: Tensor) -> None:
    for wrong in (windows[0], windows[:, :1], windows[:0]):
        with pytest.raises(ValueError, match="expected token windows"):
            perplexity(MODEL, wrong)
    with pytest.raises(ValueError, match="made with another tokenizer"):
        perplexity(MODEL, windows + len(TOKENIZER))
    broken = make_model()
    torch.nn.init.constant_(broken.model.embed_tokens.weight[windows[2, 3]], torch.nan)
    with pytest.raises(ValueError, match=r"windows have a loss that is not finite"):
        perplexity(broken, windows)


def test_out_of_memory_runs_smaller_batches(prepared: Prepared) -> None:
    windows = torch.randint(
        3, MODEL.config.vocab_size, (10, 20), generator=torch.Generator().manual_seed(0)
    )
    expected = evaluate(MODEL, prepared)
    losses = perplexity(MODEL, windows).losses
    notes: list[str] = []

    def full(module: torch.nn.Module, args: object, kwargs: dict[str, Tensor]) -> None:
        if len(kwargs["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    handle = MODEL.base_model.register_forward_pre_hook(full, with_kwargs=True)
    try:
        with pytest.warns(UserWarning, match="out of memory with"):
            found = evaluate(MODEL, prepared, note=notes.append)
            in_parts = perplexity(MODEL, windows, note=notes.append).losses
    finally:
        handle.remove()
    assert found["choice"].equals(expected["choice"])
    columns = [f"logprob_{option}" for option in range(4)]
    assert np.allclose(found[columns], expected[columns], rtol=1e-5, atol=1e-5)
    assert torch.allclose(in_parts, losses, rtol=1e-5)
    assert notes and all("out of memory: at most" in note for note in notes)
