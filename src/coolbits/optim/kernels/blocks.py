"""Device code that reads and writes tiles of tensors and of block-wise quantized states (`optim.codecs.Blockwise`).

Every thread holds 4 consecutive elements at a time whatever their type: 16 bytes of float32, 8 of bfloat16, 4 of codes.
So all tensors of a tile share one layout and nothing has to change hands between threads; each warp reads whole
128-byte lines. Offsets within a tile are 32 bits; where it starts, 64.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from coolbits.optim.kernels.launch import Table

_ROUNDING = tl.constexpr(12582912.0)  # 1.5 * 2**23


class State(NamedTuple):
    """One state of all tensors."""

    codes: Table
    scales: Table
    book: Tensor | None  # of dynamic codes, float32 [513]: 256 entries; -inf, the 255 midpoints between them, inf
    signed: tl.constexpr


class Tile(NamedTuple):
    """Where a program works: `offsets` and `rows` count from the tile's first element and first block."""

    tensor: tl.tensor  # place in the tables
    start: tl.tensor  # int64, first element
    block: tl.tensor  # int64, first block
    offsets: tl.tensor  # int32 [rows, columns]
    rows: tl.tensor  # int32 [rows]


class Masks(NamedTuple):
    """What there is of a tile. Functions take None for all of it: masked accesses do not become vector accesses."""

    elements: tl.tensor  # bool [rows, columns]
    blocks: tl.tensor  # bool [rows]


@triton.jit
def read(table, tile, masks):
    """Return a tile of a tensor, with zeros where there is nothing."""
    pointers = _address(table, tile.tensor, tile.start) + tile.offsets
    return tl.load(pointers) if masks is None else tl.load(pointers, mask=masks.elements, other=0)


@triton.jit
def write(table, tile, masks, values):
    """Store a tile of a tensor."""
    pointers = _address(table, tile.tensor, tile.start) + tile.offsets
    tl.store(pointers, values.to(table.dtype), mask=None if masks is None else masks.elements)


@triton.jit
def read_state(state, tile, masks):
    """Return a tile of a state, decoded: float32 [rows, columns]."""
    codes = read(state.codes, tile, masks)
    pointers = _address(state.scales, tile.tensor, tile.block) + tile.rows
    scales = tl.load(pointers, mask=None if masks is None else masks.blocks)
    if state.book is None:
        values = codes.to(tl.float32) * tl.div_rn(scales, 127.0 if state.signed else 255.0)[:, None]
    else:
        values = tl.load(state.book + codes.to(tl.int32)) * scales[:, None]
    return values


@triton.jit
def write_state(state, tile, masks, values):
    """Encode a tile of a state and store its codes and scales.

    A block that holds a NaN or an infinity gets it as its scale and decodes to no finite number (the weights of that
    update are not finite either): finding it and raising here would make the host wait in every step.
    """
    if masks is not None:
        values = tl.where(masks.elements, values, 0.0)
    # Magnitudes of floats are ordered as their bits are: NaN comes out on top, and warps reduce integers in hardware.
    scales = tl.max(tl.abs(values).to(tl.int32, bitcast=True), axis=1).to(tl.float32, bitcast=True)
    pointers = _address(state.scales, tile.tensor, tile.block) + tile.rows
    tl.store(pointers, scales, mask=None if masks is None else masks.blocks)
    # One division a block: its scale is lifted, as the inverse of a denormal overflows.
    lift = tl.where(scales < 2.0**-100, 2.0**64, 1.0)
    inverse = tl.div_rn(1.0, tl.where(scales == 0, 1.0, scales * lift))
    ratios = values * lift[:, None] * inverse[:, None]
    if state.book is None:
        codes = _low_byte(ratios * (127.0 if state.signed else 255.0))
    else:
        codes = _nearest(ratios, state.book, state.signed)
    write(state.codes, tile, masks, codes)


@triton.jit
def locate(plan, ROWS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Return this program's tile, its masks, and whether it is whole, so that it needs none."""
    program = tl.program_id(0)
    tensor = tl.load(plan.owner + program)
    index = program - tl.load(plan.first + tensor)
    start = index * (ROWS * BLOCK)
    left = tl.load(plan.sizes + tensor) - start
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    offsets = rows[:, None] * BLOCK + columns[None, :]
    masks = Masks((offsets < left) & (columns < BLOCK)[None, :], rows * BLOCK < left)
    return Tile(tensor, start, index * ROWS, offsets, rows), masks, (left >= ROWS * BLOCK) & (COLUMNS == BLOCK)


@triton.jit
def _address(table, tensor, start):
    pointer = tl.load(table.addresses + tensor).to(tl.pointer_type(table.dtype)) + start
    # Bytes of the 4 elements of a thread, at most: a larger promise would spread the dtypes over different layouts.
    return tl.multiple_of(pointer, table.dtype.primitive_bitwidth // (2 if table.aligned else 8))


@triton.jit
def _low_byte(values):
    """Return integers whose lowest 8 bits are the integer nearest to each value, half to even, in two's complement."""
    return (values + _ROUNDING).to(tl.int32, bitcast=True)


@triton.jit
def _nearest(ratios, book, signed: tl.constexpr):
    """Return the index of the codebook's entry nearest to each ratio in [-1, 1], of two the lower: int32.

    Of the magnitudes of decade d = 0..6, from 10^(d-7) to 10^(d-6), the entries are the middles of 2^d equal parts
    (unsigned: 2^(d+1)). Counted from zero up, the entries' numbers so are a concave, piecewise linear function of the
    magnitude: the least of seven lines. It tells which two entries a ratio is between, and a comparison with their
    midpoint which one is nearer. Rounding errors of the lines do no harm: where they take a ratio beside an entry to
    its other side, the comparison finds that same entry. One look-up in 1 KB, where binary search makes eight in turn.
    """
    magnitudes = tl.abs(ratios)
    number = magnitudes * (1e6 * 10 / 9) + (8 / 9 - 1.0)  # less 1/2, so that rounding it is a floor
    for decade in tl.static_range(1, 7):
        line = magnitudes * (2**decade * 10.0 ** (6 - decade) * 10 / 9) + (2**decade * 8 / 9 - 1.0)
        number = tl.minimum(number, line)
    # The masks change nothing but NaN's index, which could point anywhere.
    if signed:
        sign = ratios.to(tl.int32, bitcast=True) >> 31  # 0 or -1, for which x ^ sign is x or -1 - x
        below = 127 + ((_low_byte(number) & 127) ^ sign)
    else:
        below = _low_byte(2.0 * number) & 255
    return below + (ratios > tl.load(book + 257 + below)).to(tl.int32)
