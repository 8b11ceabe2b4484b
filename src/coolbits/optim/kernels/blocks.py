"""Device code that reads and writes tiles of tensors and of block-wise quantized states (`optim.codecs.Blockwise`).

Every thread holds 4 consecutive elements at a time whatever their type: 16 bytes of float32, 8 of bfloat16, 4 of codes.
So all tensors of a tile share one layout and nothing has to change hands between threads; each warp reads whole
128-byte lines. Offsets within a tile are 32 bits; where it starts, 64.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from coolbits.optim.kernels.cells import CELLS, LEAST
from coolbits.optim.kernels.launch import Table

_ROUNDING = tl.constexpr(12582912.0)  # 1.5 * 2**23
_SIGNED_CELLS, _UNSIGNED_CELLS = (tl.constexpr(float(CELLS[signed])) for signed in (True, False))
_LEAST = tl.constexpr(LEAST)


class Book(NamedTuple):
    """What dynamic codes are looked up in: see `cells.py`."""

    entries: Tensor  # float32 [256]
    cells: Tensor  # int32 [1024]


class State(NamedTuple):
    """One state of all tensors."""

    codes: Table
    scales: Table
    book: Book | None  # of dynamic codes
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
        values = tl.load(state.book.entries + codes.to(tl.int32)) * scales[:, None]
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
    sizes = tl.abs(values) if state.signed else values
    scales = tl.max(sizes.to(tl.int32, bitcast=True), axis=1).to(tl.float32, bitcast=True)
    pointers = _address(state.scales, tile.tensor, tile.block) + tile.rows
    tl.store(pointers, scales, mask=None if masks is None else masks.blocks)
    # One division a block: its scale is lifted, as the inverse of a denormal overflows.
    lift = tl.where(scales < 2.0**-100, 2.0**64, 1.0)
    inverse = tl.div_rn(1.0, tl.where(scales == 0, 1.0, scales * lift))
    ratios = values * lift[:, None] * inverse[:, None]
    if state.book is None:
        codes = _low_bits(ratios * (127.0 if state.signed else 255.0))
    else:
        codes = _nearest(ratios, state.book.cells, state.signed)
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
def _low_bits(values):
    """Return integers whose lowest bits are the integer nearest to each value, half to even, in two's complement."""
    return (values + _ROUNDING).to(tl.int32, bitcast=True)


@triton.jit
def _nearest(ratios, cells, signed: tl.constexpr):
    """Return integers whose lowest 8 bits are the index of the codebook's entry nearest to each ratio in [-1, 1], of
    two the lower: how and why exactly, see `cells.py`. The masks change nothing but what comes of NaN."""
    sizes = tl.maximum(tl.abs(ratios) if signed else ratios, _LEAST)
    number = tl.sqrt(tl.sqrt(sizes)) * (_SIGNED_CELLS if signed else _UNSIGNED_CELLS)
    turn = ratios.to(tl.int32, bitcast=True) >> 31 if signed else 0  # 0 or -1, for which x ^ turn is x or -1 - x
    cell = tl.load(cells + ((_low_bits(number) ^ turn) & 1023))
    order = sizes.to(tl.int32, bitcast=True) ^ turn
    above = (cell - (order << 8)).to(tl.uint32, bitcast=True) >> 31
    return cell + above.to(tl.int32, bitcast=True)
