"""Equation 1 measured: the steps that should conserve relevance do, and softmax does not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from crane_core.attribution import objective_values, token_relevance
from crane_lab.study.conservation import conservation, stream_shares

LOSSLESS = [
    "linear layer",
    "RMS norm",
    "gated MLP",
    "attention: values",
    "residual stream, across MLP",
]
LOSSY = [
    "attention: queries and keys, through softmax",
    "residual stream, across attention",
    "whole model: logits to embeddings",
]


@pytest.fixture
def ids(tiny_batch: tuple[Tensor, Tensor]) -> Tensor:
    return tiny_batch[0][:, :3]


def test_which_steps_conserve(tiny_llama: LlamaForCausalLM, ids: Tensor) -> None:
    table = conservation(tiny_llama, ids)
    worst = table.groupby("step")["error"].max()
    assert set(worst.index) == {*LOSSLESS, *LOSSY}
    assert (worst[LOSSLESS] < 1e-5).all()
    assert (worst[LOSSY] > 1e-3).all()
    # Two norms, seven projections and an MLP per layer, and the final norm and the head.
    counts = table["step"].value_counts() // len(ids)
    assert counts["RMS norm"] == 7 and counts["linear layer"] == 22 and counts["gated MLP"] == 3


def test_plain_gradient_does_not(tiny_llama: LlamaForCausalLM, ids: Tensor) -> None:
    table = conservation(tiny_llama, ids, rules="gradient")
    worst = table.groupby("step")["error"].max()
    assert worst["linear layer"] < 1e-5
    assert (worst[["RMS norm", "gated MLP", "attention: values"]] > 1e-3).all()


def test_a_bias_keeps_its_share(make_llama: Callable[..., LlamaForCausalLM], ids: Tensor) -> None:
    table = conservation(make_llama(mlp_bias=True), ids)
    assert table.loc[table["step"] == "linear layer", "error"].max() > 1e-3


def test_ends_agree_with_token_relevance(tiny_llama: LlamaForCausalLM, ids: Tensor) -> None:
    shares = stream_shares(tiny_llama, ids)
    assert shares.shape == (len(ids), 7)
    expected = token_relevance(tiny_llama, ids).sum(1) / objective_values(tiny_llama, ids)
    torch.testing.assert_close(shares[:, 0].float(), expected, rtol=1e-4, atol=1e-4)
    # The final norm and the head conserve.
    ones = torch.ones(len(ids), dtype=torch.float64)
    torch.testing.assert_close(shares[:, -1], ones, rtol=0, atol=1e-4)


def test_errors(tiny_llama: LlamaForCausalLM, ids: Tensor) -> None:
    with pytest.raises(ValueError, match="unknown rules 'lrp'"):
        conservation(tiny_llama, ids, rules="lrp")
    with pytest.raises(ValueError, match="token ids"):
        stream_shares(tiny_llama, ids[:, :1])
