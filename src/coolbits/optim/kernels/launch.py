"""What the launch of a kernel over a list of tensors needs: tables of addresses, and which program does which tile.

A kernel gets a list of tensors as a table of their addresses, one int64 each, so that one launch serves them all. Each
program works on one tile: consecutive quantization blocks of one tensor. Tables are kept from step to step; they are
functions of their keys (addresses, sizes) alone, so that none can go stale.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret

# Elements of a program's tile, if its blocks are not larger. 8 for each of 256 threads are two vector loads of 16 bytes
# a thread and tensor. Adam would take up to 98 registers a thread (sm_90), and does with 80: so three programs share a
# multiprocessor, with 60 KB of loads under way. With 16 for each of 128 threads there are a sixth fewer instructions,
# but 127 to 168 registers, which leaves room for half as many threads.
_TILE_ELEMENTS = 2048
_ELEMENTS_PER_THREAD = 8
_MAX_WARPS = 32
_REGISTERS = 80
_REGISTERS_PER_LANE = 2048  # of a multiprocessor, for all its warps

_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.int8: tl.int8,
    torch.uint8: tl.uint8,
}


class Shape(NamedTuple):
    """Shape of a tile: `rows` blocks of `block` elements, held as `columns` of them: the next power of two."""

    rows: int
    block: int
    columns: int

    @property
    def warps(self) -> int:
        """Warps (of 32 threads) of a program."""
        return min(max(self.rows * self.columns // (32 * _ELEMENTS_PER_THREAD), 1), _MAX_WARPS)

    @property
    def registers(self) -> int:
        """Registers that a thread of Adam may take: 32 warps have 64 each."""
        return min(_REGISTERS, _REGISTERS_PER_LANE // self.warps)


class Tiles(NamedTuple):
    """Which program works where: program p on tile p - first[owner[p]] of the tensor owner[p]."""

    owner: Tensor  # int32 [programs]
    first: Tensor  # int64 [tensors], the first program of each tensor
    sizes: Tensor  # int64 [tensors], elements


class Table(NamedTuple):
    """Addresses of tensors. Two things are known when a kernel is compiled: the tensors' dtype, and whether each tile
    starts at a multiple of 16 bytes, as vector accesses need."""

    addresses: Tensor  # int64 [tensors]
    dtype: tl.constexpr
    aligned: tl.constexpr


def tile_shape(block_size: int) -> Shape:
    """Return how many blocks a program takes: one, or as many small ones as make up the usual tile."""
    columns = triton.next_power_of_2(block_size)
    return Shape(max(_TILE_ELEMENTS // columns, 1), block_size, columns)


def tiles(sizes: tuple[int, ...], shape: Shape, device: torch.device) -> Tiles:
    """Return the division of tensors of so many elements into tiles of `shape`; a tensor's last one may be short."""
    return _tiles(sizes, shape.rows * shape.block, device)


def table(tensors: list[Tensor], shape: Shape) -> Table:
    """Return the table of the tensors' addresses, on their device, to be read by tiles of `shape`."""
    first = tensors[0]
    addresses, aligned = _addresses(tuple(tensor.data_ptr() for tensor in tensors), first.device)
    dtype = _DTYPES[first.dtype]
    # The interpreter takes a constant in a tuple as it is: for a condition, but not for a dtype, it can be wrapped.
    known = dtype if INTERPRETED else tl.constexpr(dtype)
    return Table(addresses, known, tl.constexpr(aligned and shape.block % 16 == 0))


@lru_cache(maxsize=64)
def _tiles(sizes: tuple[int, ...], elements: int, device: torch.device) -> Tiles:
    counts = torch.tensor([-(-size // elements) for size in sizes])
    owner = torch.repeat_interleave(torch.arange(len(sizes), dtype=torch.int32), counts)
    return Tiles(owner.to(device), (counts.cumsum(0) - counts).to(device), torch.tensor(sizes).to(device))


@lru_cache(maxsize=1024)
def _addresses(addresses: tuple[int, ...], device: torch.device) -> tuple[Tensor, bool]:
    numbers = torch.tensor(addresses, dtype=torch.int64)
    if device.type == "cuda":
        # From pinned memory the copy is queued behind the work before it: the host does not wait for moved gradients.
        numbers = numbers.pin_memory().to(device, non_blocking=True)
    return numbers, all(address % 16 == 0 for address in addresses)


def require(
    name: str, tensors: list[Tensor], dtypes: tuple[torch.dtype, ...], sizes: tuple[int, ...], device: torch.device
) -> None:
    """Check a list of tensors before a launch: a kernel would read beside what does not fit.

    Raises:
        ValueError: if they are not contiguous tensors of these sizes, all of one of the `dtypes`, on `device`, or this
            Triton does not run there.
    """
    found = {(tensor.dtype, tensor.device, tensor.is_contiguous()) for tensor in tensors}
    if len(found) > 1 or not found <= {(dtype, device, True) for dtype in dtypes}:
        kinds = sorted(f"{dtype} on {place}{'' if packed else ', not contiguous'}" for dtype, place, packed in found)
        wanted = " or ".join(map(str, dtypes))
        raise ValueError(f"{name} are {' and '.join(kinds)}; the kernels take contiguous {wanted} on {device}")
    if tuple(tensor.numel() for tensor in tensors) != sizes:
        raise ValueError(f"{name} have {[tensor.numel() for tensor in tensors]} elements, not {list(sizes)}")
    require_device(device)


def require_device(device: torch.device) -> None:
    """Check that this Triton runs on the device.

    Raises:
        ValueError: if it does not.
    """
    how, wanted = ("interpreted", "cpu") if INTERPRETED else ("compiled", "cuda")
    if device.type != wanted:
        raise ValueError(f"tensors are on {device}; Triton's kernels are {how} here, for tensors on {wanted}")
