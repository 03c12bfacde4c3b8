import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crane_core import kernels
from crane_core.kernels import fast_linear, inference


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every product that oneDNN does."""
    found: list[int] = []
    original = kernels._product

    def counted(*args: torch.Tensor) -> torch.Tensor:
        found.append(1)
        return original(*args)

    monkeypatch.setattr(kernels, "_product", counted)
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(5,), (2, 3, 5), (0, 5)])
def test_same_values_and_gradients(calls: list[int], bias: bool, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 7, bias=bias).requires_grad_(False)
    x, seed = torch.randn(size).requires_grad_(), torch.randn(*size[:-1], 7)
    expected = layer(x)
    (gradient,) = torch.autograd.grad(expected, x, seed)
    assert not calls
    with fast_linear():
        found = layer(x)
        (fast_gradient,) = torch.autograd.grad(found, x, seed)
        with torch.no_grad():
            layer(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(fast_gradient, gradient)
    assert len(calls) == 3
    layer(x)
    assert len(calls) == 3


def test_what_it_leaves_alone(calls: list[int]) -> None:
    learning, double = nn.Linear(5, 7), nn.Linear(5, 7).double().requires_grad_(False)
    x = torch.randn(2, 5)
    with fast_linear():
        learning(x).sum().backward()
        double(x.double())
        F.linear(input=x, weight=learning.weight.detach())
    assert learning.weight.grad is not None
    assert not calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
def test_faster_linear_layers_are_the_same(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(3)
    layer = nn.Linear(24, 40, bias=bias).to(dtype)
    inputs = torch.randn(2, 5, 24, dtype=dtype)
    expected = F.linear(
        inputs.double(), layer.weight.double(), layer.bias.double() if bias else None
    )
    with inference():
        got = layer(inputs)
        assert not got.requires_grad
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    assert layer(inputs).requires_grad  # and nothing is left behind
