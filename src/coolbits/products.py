"""Products of bfloat16 matrices on processors that have no instructions for them.

PyTorch computes such products there by plain loops, in 7 to 100 times the time of float32. Here the factors become
float32, in which a product of two bfloat16 numbers is exact and sums are kept, and the result is rounded once: as
processors with such instructions do it, but for the order of the sums.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
# What autocast runs in bfloat16, and its gradient; all results are of the factors' dtype.
_PRODUCTS = frozenset(
    {
        _ATEN.mm.default,
        _ATEN.addmm.default,
        _ATEN.bmm.default,
        _ATEN.baddbmm.default,
        _ATEN.linear.default,
        _ATEN.matmul.default,
        _ATEN.convolution.default,
        _ATEN.convolution_backward.default,
        _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,  # its forward pass is fast enough
    }
)


@cache
def has_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 matrices: what PyTorch asks before it has a library do it."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def widens(device: str, dtype: torch.dtype) -> bool:
    """Return whether `bfloat16_products` makes a difference: in bfloat16, on a CPU without such products."""
    return dtype == torch.bfloat16 and device == "cpu" and not has_bfloat16()


def bfloat16_products(device: str, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context for products in `dtype`, forward and backward, in which those of bfloat16 are not slow.

    It does nothing where the device has such products, or where `dtype` is another one. Nothing is compiled in it.
    """
    return _Widened() if widens(device, dtype) else nullcontext()


def products_of(model: nn.Module, precision: str) -> AbstractContextManager[object]:
    """Return `bfloat16_products` for a model where it is, with the `precision` of a recipe."""
    return bfloat16_products(next(model.parameters()).device.type, getattr(torch, precision))


class _Widened(TorchDispatchMode):
    """Computes products of bfloat16 in float32 and rounds them."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not any(map(_is_narrow, args)):
            return func(*args, **kwargs)
        made = func(*(arg.float() if isinstance(arg, torch.Tensor) else arg for arg in args), **kwargs)
        if isinstance(made, torch.Tensor):
            return made.bfloat16()
        return tuple(None if part is None else part.bfloat16() for part in made)


def _is_narrow(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
