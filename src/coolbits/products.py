"""Matrix products on CPUs where PyTorch's own way to make them is slow: another way, with results as good.

Of bfloat16, on processors that have no instructions for it, PyTorch makes them by plain loops, in 7 to 100 times the
time of float32. Here the factors become float32, in which a product of two bfloat16 numbers is exact and sums are kept,
and the result is rounded once: as processors with such instructions do it, but for the order of the sums.

Of float32, PyTorch has MKL make them, which uses AVX-512 on Intel's processors alone. On others oneDNN makes them here,
which PyTorch has for bfloat16: on a Zen 5 twice as fast.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from coolbits.artifacts.environment import cpu_says

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


@cache
def mkl_is_slow() -> bool:
    """Return whether this processor has AVX-512, PyTorch's MKL does not use it, and oneDNN, which does, is there."""
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return libraries and wide and cpu_says("vendor_id") not in (None, "", "GenuineIntel")


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return functional.linear(inputs, weight, bias); float32 on a CPU, without gradients, by the faster library."""
    if not _is_for_onednn(inputs, weight):
        return nn.functional.linear(inputs, weight, bias)
    # With a part of a larger matrix oneDNN would go by plain loops. A clone is dense, in the same order of dimensions.
    dense = weight if weight.is_contiguous() or weight.mT.is_contiguous() else weight.clone()
    return _by_onednn(inputs, dense, bias)


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of [..., m, k] and [k, n], likewise."""
    return linear(left, right.mT)


def _is_for_onednn(inputs: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN is to make a product: not of nothing, which it refuses."""
    numbers = inputs.device.type == "cpu" and inputs.dtype == weight.dtype == torch.float32 and weight.numel() > 0
    watched = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    return numbers and not watched and mkl_is_slow()


def _by_onednn(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return made


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
