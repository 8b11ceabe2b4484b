"""Device code of the fused updates with 8-bit states: decode, update, encode in one pass over memory.

Bytes moved per element (block 2048; a block's scale adds 0.002 a state and direction, 0.016 with block 256):

| kernel | reads | writes | sum | in float32 |
|---|---|---|---|---|
| adam_step | weight 4, gradient 4, codes 1 + 1 | weight 4, codes 1 + 1 | 16 | 28 |
| sgd_step | weight 4, gradient 4, codes 1 | weight 4, codes 1 | 14 | 20 |
| momentum_step | gradient 4, codes 1 | direction 4, codes 1 | 10 | 12, with nesterov 16 |

With bfloat16 gradients 2 less. An H200 has time for about 100 instructions an element while its memory delivers Adam's
16 bytes, half of them at the integer pipe. Compiled for sm_90, a whole tile of Adam takes (at that pipe in brackets):

| codes | block 2048 | block 256 |
|---|---|---|
| linear | 60 (14) | 75 (19) |
| dynamic | 80 (28) | 91 (30) |

momentum 30 to 51 (7 to 19). A warp's look-ups are in 8 lines of the L1 cache at most when it decodes, in 32 when it
encodes. Checked in Triton's interpreter; not yet timed on a GPU.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from coolbits.optim.kernels.blocks import State, locate, read, read_state, write, write_state
from coolbits.optim.kernels.launch import Table


class AdamNumbers(NamedTuple):
    """What an update of Adam is given, as float32."""

    lr: float
    shrink: float  # 1 - lr * decay
    beta1: float
    rest1: float  # 1 - beta1, which float32 could not tell well from beta1
    beta2: float
    rest2: float
    eps: float


class MomentumNumbers(NamedTuple):
    """What an update by momentum is given; without a new weight `lr` and `shrink` are not read."""

    momentum: float
    lr: float
    shrink: float


class AdamTables(NamedTuple):
    """All tensors of an update of Adam."""

    weights: Table
    gradients: Table
    exp_avg: State
    exp_avg_sq: State


class MomentumTables(NamedTuple):
    """All tensors of an update by momentum."""

    outputs: Table  # weights or directions
    gradients: Table
    momenta: State


@triton.jit
def adam_kernel(tables, plan, corrections, numbers, ROWS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Update one tile: `corrections` are minus Adam's 1 - beta ** step, float64 [2]."""
    inverse = tl.rsqrt(-tl.load(corrections).to(tl.float32))
    step_size = numbers.lr * inverse * inverse
    inverse_root = tl.rsqrt(-tl.load(corrections + 1).to(tl.float32))
    tile, masks, whole = locate(plan, ROWS, BLOCK, COLUMNS)
    if whole:
        _adam_tile(tables, tile, None, step_size, inverse_root, numbers)
    else:
        _adam_tile(tables, tile, masks, step_size, inverse_root, numbers)


@triton.jit
def _adam_tile(tables, tile, masks, step_size, inverse_root, numbers):
    gradient = read(tables.gradients, tile, masks).to(tl.float32)
    weight = read(tables.weights, tile, masks)
    average = numbers.beta1 * read_state(tables.exp_avg, tile, masks) + numbers.rest1 * gradient
    square = numbers.beta2 * read_state(tables.exp_avg_sq, tile, masks) + numbers.rest2 * gradient * gradient
    # The inverse of a square root takes one instruction, a division nine.
    inverse = tl.rsqrt(tl.sqrt(square) * inverse_root + numbers.eps)
    write(tables.weights, tile, masks, numbers.shrink * weight - step_size * average * inverse * inverse)
    write_state(tables.exp_avg, tile, masks, average)
    write_state(tables.exp_avg_sq, tile, masks, square)


@triton.jit
def momentum_kernel(
    tables,
    plan,
    numbers,
    NESTEROV: tl.constexpr,
    UPDATE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Update one tile: of weights with UPDATE, else write its direction."""
    tile, masks, whole = locate(plan, ROWS, BLOCK, COLUMNS)
    if whole:
        _momentum_tile(tables, tile, None, numbers, NESTEROV, UPDATE)
    else:
        _momentum_tile(tables, tile, masks, numbers, NESTEROV, UPDATE)


@triton.jit
def _momentum_tile(tables, tile, masks, numbers, NESTEROV: tl.constexpr, UPDATE: tl.constexpr):
    gradient = read(tables.gradients, tile, masks).to(tl.float32)
    momentum = numbers.momentum * read_state(tables.momenta, tile, masks) + gradient
    output = momentum
    if NESTEROV:
        output = numbers.momentum * momentum + gradient
    if UPDATE:
        output = numbers.shrink * read(tables.outputs, tile, masks) - numbers.lr * output
    write(tables.outputs, tile, masks, output)
    write_state(tables.momenta, tile, masks, momentum)
