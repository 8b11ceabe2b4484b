"""The symmetric product X Xᵀ of Newton-Schulz iterations: the lower triangle is computed, the upper one is its mirror.

Two of the three products of an iteration are symmetric: A = X Xᵀ, and b A + c A², as A² = A Aᵀ. Checked in Triton's
interpreter and compiled for sm_90; not yet timed on a GPU.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from coolbits.optim.kernels.launch import require_device

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class _Blocking(NamedTuple):
    """A program's tile of the result, the depth of the products it sums at once, and its resources."""

    tile: int
    depth: int
    warps: int
    stages: int


def gram(x: Tensor, add: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0) -> Tensor:  # [batch, m, n]
    """Return alpha * X Xᵀ, or that + beta * add, for each matrix of the batch: [batch, m, m], in the dtype of `x`.

    `add` is symmetric, [batch, m, m], of the dtype of `x`. Sums are float32, and float32 is multiplied as such, not as
    TF32. `x` and `add` may have any strides.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit.
    """
    if x.ndim != 3 or x.dtype not in _DTYPES:
        raise ValueError(f"gram takes [batch, m, n] of one of {_DTYPES}, not {list(x.shape)} of {x.dtype}")
    batch, rows, columns = x.shape
    require_device(x.device)
    result = x.new_empty(batch, rows, rows)
    if add is not None and (add.shape, add.dtype, add.device) != (result.shape, x.dtype, x.device):
        raise ValueError(
            f"add is {add.dtype} {list(add.shape)}, not {x.dtype} {list(result.shape)}, or on another device"
        )
    blocking = _blocking(rows, x.dtype)
    edge = triton.cdiv(rows, blocking.tile)
    if result.numel() == 0:
        return result
    with torch.cuda.device_of(x):
        _gram_kernel[edge * (edge + 1) // 2, batch](
            x,
            add,
            result,
            rows,
            columns,
            x.stride(),
            result.stride() if add is None else add.stride(),
            alpha,
            beta,
            TILE=blocking.tile,
            DEPTH=blocking.depth,
            num_warps=blocking.warps,
            num_stages=blocking.stages,
        )
    return result


def _blocking(rows: int, dtype: torch.dtype) -> _Blocking:
    """Return the blocking for matrices of so many rows.

    Half precision: 128 x 128 sums are 64 registers a thread of 8 warps and feed two warpgroups of wgmma; 64 deep is one
    128-byte line of a row; three stages of both operands take 96 KB of shared memory, which gaming cards have too.
    Small matrices take small tiles, or the triangle would be one square. float32 is summed by the ordinary cores.
    """
    if dtype == torch.float32:
        return _Blocking(64 if rows > 32 else 32, 32, 4, 2)
    return _Blocking(128, 64, 8, 3) if rows > 256 else _Blocking(64, 64, 4, 4)


@triton.jit
def _gram_kernel(
    x,
    add,
    result,
    rows,
    columns,
    x_strides,
    add_strides,
    alpha,
    beta,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # Program p of the triangle's p = i (i + 1) / 2 + j, j <= i. The root is near enough for a step either way to mend.
    p = tl.program_id(0)
    i = ((tl.sqrt(8.0 * p + 1.0) - 1.0) / 2.0).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > p, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= p, i + 1, i)
    j = p - i * (i + 1) // 2
    batch = tl.program_id(1).to(tl.int64)

    down = i * TILE + tl.arange(0, TILE)  # the rows of X that are rows of this tile
    across = j * TILE + tl.arange(0, TILE)  # those that are its columns
    depths = tl.arange(0, DEPTH)
    # Rows beyond the last are read as the first ones and never stored: so only the depth needs a mask.
    x += batch * x_strides[0]
    left = x + (down % rows).to(tl.int64)[:, None] * x_strides[1] + depths[None, :] * x_strides[2]
    right = x + (across % rows).to(tl.int64)[None, :] * x_strides[1] + depths[:, None] * x_strides[2]
    total = tl.zeros((TILE, TILE), dtype=tl.float32)
    for done in range(0, columns, DEPTH):
        a = tl.load(left, mask=(depths < columns - done)[None, :], other=0)
        b = tl.load(right, mask=(depths < columns - done)[:, None], other=0)
        total = tl.dot(a, b, total, input_precision="ieee")
        left += DEPTH * x_strides[2]
        right += DEPTH * x_strides[2]

    total *= alpha
    down, across = down.to(tl.int64), across.to(tl.int64)
    inside = (down < rows)[:, None] & (across < rows)[None, :]
    if add is not None:
        places = batch * add_strides[0] + down[:, None] * add_strides[1] + across[None, :] * add_strides[2]
        total += beta * tl.load(add + places, mask=inside, other=0).to(tl.float32)
    values = total.to(result.dtype.element_ty)
    result += batch * rows * rows
    tl.store(result + down[:, None] * rows + across[None, :], values, mask=inside)
    if i != j:
        tl.store(result + across[:, None] * rows + down[None, :], tl.trans(values), mask=tl.trans(inside))
