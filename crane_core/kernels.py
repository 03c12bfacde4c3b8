"""Faster float32 linear layers on a CPU: they are where most of the time of relevance goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return result


class _Linear(torch.autograd.Function):
    """inputs @ weight.T + bias, with a gradient for the inputs only."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _product(gradients[0], ctx.saved_tensors[0].t(), None), None, None


class _OneDNN(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear and not kwargs:
            inputs, weight, bias = (*args, None)[:3]
            fixed = not torch.is_grad_enabled() or not (
                weight.requires_grad or (bias is not None and bias.requires_grad)
            )
            if (
                fixed
                and inputs.device.type == weight.device.type == "cpu"
                and inputs.dtype == weight.dtype == torch.float32
            ):
                return _Linear.apply(inputs, weight, bias)
        return func(*args, **(kwargs or {}))


@contextmanager
def fast_linear() -> Iterator[None]:
    """Run float32 linear layers on the CPU through oneDNN instead of MKL, in a `with` block.

    The same products to rounding, and the same gradients with respect to the inputs; layers whose
    weights require a gradient are left alone, as is everything on other devices, of other types,
    and any PyTorch built without oneDNN. On AMD processors with AVX-512 oneDNN's kernels take half
    the time of MKL's; elsewhere the two are close.
    """
    has = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    with _OneDNN() if has else nullcontext():
        yield


@contextmanager
def inference() -> Iterator[None]:
    """No gradients, and the faster linear layers where PyTorch has them; also a decorator."""
    with torch.no_grad(), fast_linear():
        yield
