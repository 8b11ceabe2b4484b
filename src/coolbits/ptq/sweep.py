"""The sweep of GPTQ: quantize one input after the other, take each error off the inputs still to come.

Weights lie as [inputs, rows], so that the weights of one input are contiguous. Rows do not interact.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from coolbits.native import library, run_parts
from coolbits.ptq.grids import find_scales
from coolbits.study.recipes.methods import GPTQ

_SOURCE = Path(__file__).with_name("sweep.cpp")
_ROW_BYTES = 256  # of an input's weights, that its functions make at once


class Groups(NamedTuple):
    """Scales and zeros of all groups [groups, rows], float32."""

    scales: torch.Tensor
    zeros: torch.Tensor


class Swept(NamedTuple):
    """What a sweep gives: codes, uint8 [inputs, rows], and the groups they refer to."""

    codes: torch.Tensor
    groups: Groups


class State(NamedTuple):
    """A sweep under way: see `sweep`. Of `errors` and `codes` the inputs that were reached are filled in."""

    columns: torch.Tensor  # float64 or float32 [inputs, rows]
    errors: torch.Tensor  # likewise
    codes: torch.Tensor  # uint8 [inputs, rows]
    spread: torch.Tensor  # likewise [inputs, inputs]
    groups: Groups
    tops: torch.Tensor  # float32 [rows]
    members: torch.Tensor  # int32 [inputs]


def sweep(
    columns: torch.Tensor,
    spread: torch.Tensor,
    tops: torch.Tensor,
    members: torch.Tensor,
    known: Groups | None,
    recipe: GPTQ,
) -> Swept:
    """Quantize the inputs of a weight in the order given.

    Args:
        columns: the weights [inputs, rows], float64 or float32, overwritten.
        spread: as in `Factor`, [inputs, inputs], in the same precision.
        tops: the highest code of each row, float32 [rows].
        members: the group of each input, int32 [inputs].
        known: static groups. Without them groups must be neighbours of equal size, and their scales are found as
            `recipe.scales` says: when the sweep reaches a group, or the block in which it starts.
        recipe: how scales are found, but for the bits, which are `tops`; and after how many inputs, a block, their
            errors are taken off all later ones.
    """
    inputs, rows = columns.shape
    count = int(members.max()) + 1
    size = inputs // count
    empty = (torch.empty(count, rows, device=columns.device) for _ in range(2))
    codes = torch.empty_like(columns, dtype=torch.uint8)
    state = State(columns, torch.empty_like(columns), codes, spread, known or Groups(*empty), tops, members)
    quantize_span = compiled_span if columns.device.type == "cpu" and available() else plain_span

    def find(group: int) -> None:
        own = columns[group * size : (group + 1) * size].T  # [rows, size]
        found = find_scales(own, tops, recipe.grid.symmetric, recipe.grid.search)
        for part, values in zip(state.groups, found, strict=True):
            part[group] = values

    at_once = known is not None or recipe.scales == "block"  # the scales of a block's groups, before its first input
    for start, stop in blocks(inputs, 1 if at_once else size, recipe.block_size):
        if known is None and at_once:
            for group in range(-(-start // size), -(-stop // size)):
                find(group)
        for first, last in _spans(start, stop, stop - start if at_once else size):
            if not at_once and first % size == 0:
                find(first // size)
            quantize_span(state, first, last)
            _spread_errors(state, first, last, stop)
        _spread_errors(state, start, stop, inputs)
    return Swept(state.codes, state.groups)


def _spread_errors(state: State, start: int, middle: int, stop: int) -> None:
    """Take the errors of the inputs `start` to `middle` off those from there to `stop`."""
    share = state.spread[start:middle, middle:stop].T
    state.columns[middle:stop].addmm_(share, state.errors[start:middle], alpha=-1)


def plain_span(state: State, start: int, stop: int) -> None:
    """Quantize the inputs `start` to `stop`, whose groups have scales: by halves, so that most of it is products."""
    if stop - start > 1:
        middle = (start + stop) // 2
        plain_span(state, start, middle)
        _spread_errors(state, start, middle, stop)
        plain_span(state, middle, stop)
        return
    column, member = state.columns[start], state.members[start]
    scale, zero = (part[member] for part in state.groups)
    multiple = torch.div(column.to(torch.float32), scale).round_().clamp_(-zero, state.tops - zero)
    state.codes[start] = multiple + zero
    torch.addcmul(column, multiple.to(column.dtype), scale.to(column.dtype), value=-1, out=state.errors[start])


def available() -> bool:
    """Return whether there is a compiler that makes `compiled_span`, or it made it before."""
    return library(_SOURCE) is not None


def compiled_span(state: State, start: int, stop: int) -> None:
    """Do what `plain_span` does on a CPU, in one function that PyTorch's threads run on some of the rows each."""
    found = library(_SOURCE)
    assert found is not None
    rows = state.columns.shape[1]
    shares = state.spread[start:stop, start:stop].T.contiguous()
    tensors = (state.columns, state.errors, state.codes, shares, *state.groups, state.tops, state.members)
    assert all(tensor.is_contiguous() for tensor in tensors)
    addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    threads = torch.get_num_threads()
    width = _ROW_BYTES // state.columns.itemsize
    pieces = -(-rows // width)
    parts = min(pieces, 4 * threads)
    edges = [min(pieces * part // parts * width, rows) for part in range(parts + 1)]

    function = found.sweep_span_float64 if state.columns.dtype == torch.float64 else found.sweep_span_float32

    def run(part: int) -> None:
        numbers = (rows, start, stop, *edges[part : part + 2])
        function(*addresses, *map(ctypes.c_int64, numbers))

    run_parts(run, parts, threads)


def _spans(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut a block into spans of at most `size`."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)


def blocks(inputs: int, group_size: int, block_size: int) -> Iterator[tuple[int, int]]:
    """Cut the inputs into blocks of at most `block_size` so that no group starts inside one and ends outside.

    A block that holds several groups holds them whole; a group longer than a block starts one. Scales found at a
    group's start thus come from weights that carry every earlier error, and the block size decides nothing but speed.
    """
    span = max(block_size // group_size, 1) * group_size
    step = min(span, block_size)
    for outer in range(0, inputs, span):
        end = min(outer + span, inputs)
        for start in range(outer, end, step):
            yield start, min(start + step, end)
