"""x W^T with W as packed codes: a layer's weights leave memory at 2 to 4 bits and become numbers in registers.

Weights are those of `IntegerLayer.weight`, rounded to the dtype of x as a model's own would be: from the product with
dequantized weights it differs by the order of summation alone. Checked in Triton's interpreter and compiled for sm_90;
not yet timed on a GPU.
"""

from typing import NamedTuple, TypeGuard

import torch
import triton
import triton.language as tl
from torch import Tensor

from coolbits.models.layers import IntegerLayer, Layer
from coolbits.optim.kernels.launch import INTERPRETED, require_device

_BITS = (2, 3, 4)
_DEPTHS = (64, 32)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class _Blocking(NamedTuple):
    """A program's tile of the result, and its resources."""

    rows: int
    outputs: int
    warps: int
    stages: int


def dequantize_matmul(
    x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, bias: Tensor | None = None
) -> Tensor:
    """Return x W^T + bias, [..., outputs], in the dtype of `x`, with W = scale * (code - zero).

    Groups are neighbouring inputs, `inputs / groups` of them: a multiple of 32, or all. Sums are float32, and float32
    is multiplied as such, not as TF32.

    Args:
        x: [..., inputs], float32, float16 or bfloat16.
        codes: as `models.packing.pack` packs them, uint8 [outputs, ceil(inputs * bits / 8)].
        scales: float32 [outputs, groups].
        zeros: uint8 or float32 [outputs, groups]; None: all are 2**(bits-1).
        bits: 2 to 4.
        bias: [outputs].

    Raises:
        ValueError: if shapes, dtypes or devices do not fit.
    """
    inputs, (outputs, groups) = x.shape[-1], scales.shape
    _check(x, codes, scales, zeros, bits, bias)
    require_device(x.device)
    flat = x.reshape(-1, inputs)
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    result = x.new_empty(len(flat), outputs)
    if result.numel() == 0:
        return result.view(*x.shape[:-1], outputs)
    blocking = _blocking(len(flat), x.dtype)
    size = inputs // groups
    # Eight codes of 4 bits are a word; of other sizes, as many bytes as a code has bits.
    pieces = codes.view(torch.int32) if bits == 4 and codes.shape[1] % 4 == 0 else codes
    with torch.cuda.device_of(x):
        _kernel[triton.cdiv(outputs, blocking.outputs), triton.cdiv(len(flat), blocking.rows)](
            flat,
            pieces,
            scales,
            zeros,
            bias,
            result,
            len(flat),
            outputs,
            inputs,
            flat.stride(0),
            pieces.shape[1],
            groups,
            size,
            BITS=bits,
            PIECES=bits if pieces is codes else 1,
            ROWS=blocking.rows,
            OUTPUTS=blocking.outputs,
            DEPTH=_depth(size, inputs),
            WIDEN=INTERPRETED,  # the interpreter cannot multiply bfloat16; products of float32 are as exact
            num_warps=blocking.warps,
            num_stages=blocking.stages,
        )
    return result.view(*x.shape[:-1], outputs)


def fits(layer: Layer) -> TypeGuard[IntegerLayer]:
    """Say whether the kernel takes a layer: codes of 2 to 4 bits, neighbouring groups of a multiple of 32, or rows."""
    if not isinstance(layer, IntegerLayer) or layer.bits not in _BITS:
        return False
    return layer.neighbouring and _depth(layer.group_size, layer.shape[1]) is not None


def _depth(group_size: int, inputs: int) -> int | None:
    """Return how many inputs are multiplied at once, so that they share a scale; None if that cannot be."""
    return next((depth for depth in _DEPTHS if group_size % depth == 0 or group_size == inputs), None)


def _check(x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, bias: Tensor | None) -> None:
    inputs, (outputs, groups) = x.shape[-1], scales.shape
    if bits not in _BITS or inputs % groups or _depth(inputs // groups, inputs) is None:
        raise ValueError(
            f"{groups} groups of {inputs} inputs, {bits} bits: the kernel takes {_BITS} and groups of 32 n"
        )
    if x.dtype not in _DTYPES or scales.dtype != torch.float32:
        raise ValueError(f"x and scales are {x.dtype} and {scales.dtype}; the kernel takes {_DTYPES} and float32")
    if zeros is not None and zeros.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"zeros are {zeros.dtype}; the kernel takes uint8 or float32")
    expected = {
        "codes": (codes, (outputs, -(-inputs * bits // 8))),
        "scales": (scales, (outputs, groups)),
        "zeros": (zeros, (outputs, groups)),
        "bias": (bias, (outputs,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and (tensor.shape != shape or not tensor.is_contiguous() or tensor.device != x.device):
            found = f"{list(tensor.shape)} on {tensor.device}"
            raise ValueError(f"{name} are {found}; the kernel takes contiguous {list(shape)} on {x.device}")


def _blocking(rows: int, dtype: torch.dtype) -> _Blocking:
    """Return the blocking for so many rows: few of them leave the time to reading codes, many to multiplying."""
    if dtype == torch.float32:
        return _Blocking(16 if rows <= 16 else 32, 64, 4, 2)
    return _Blocking(16, 64, 4, 4) if rows <= 16 else _Blocking(64, 128, 8, 3)


@triton.jit
def _kernel(
    x,
    codes,
    scales,
    zeros,
    bias,
    result,
    rows,
    outputs,
    inputs,
    x_stride,
    row_pieces,
    groups,
    group_size,
    BITS: tl.constexpr,
    PIECES: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDEN: tl.constexpr,
):
    down = tl.program_id(1) * ROWS + tl.arange(0, ROWS)  # rows of x
    across = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    # Rows and outputs beyond the last are read as the first ones and never stored: so only the depth needs a mask.
    left = x + (down % rows).to(tl.int64)[:, None] * x_stride
    output = (across % outputs).to(tl.int64)
    packed = codes + output[:, None] * row_pieces
    depths = tl.arange(0, DEPTH)
    eights = tl.arange(0, DEPTH // 8) * PIECES  # eight codes begin with a byte and end with one
    shifts = tl.arange(0, 8) * BITS
    total = tl.zeros((ROWS, OUTPUTS), dtype=tl.float32)
    for start in range(0, inputs, DEPTH):
        a = tl.load(left + (start + depths)[None, :], mask=(start + depths < inputs)[None, :], other=0)
        places = start // 8 * PIECES + eights
        words = tl.zeros((OUTPUTS, DEPTH // 8), dtype=tl.int32)
        for piece in tl.static_range(PIECES):
            inside = (places + piece < row_pieces)[None, :]
            words |= tl.load(packed + (places + piece)[None, :], mask=inside, other=0).to(tl.int32) << (8 * piece)
        code = (words[:, :, None] >> shifts[None, None, :]) & ((1 << BITS) - 1)
        code = tl.reshape(code, (OUTPUTS, DEPTH)).to(tl.float32)
        group = output * groups + start // group_size
        if zeros is None:
            code -= 1 << (BITS - 1)
        else:
            code -= tl.load(zeros + group).to(tl.float32)[:, None]
        weight = (tl.load(scales + group)[:, None] * code).to(a.dtype)
        if WIDEN:
            a, weight = a.to(tl.float32), weight.to(tl.float32)
        total = tl.dot(a, tl.trans(weight), total, input_precision="ieee")
    if bias is not None:
        total += tl.load(bias + output).to(tl.float32)[None, :]
    stored = (down < rows)[:, None] & (across < outputs)[None, :]
    target = result + down.to(tl.int64)[:, None] * outputs + across[None, :]
    tl.store(target, total.to(result.dtype.element_ty), mask=stored)
