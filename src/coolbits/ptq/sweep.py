"""The sweep of GPTQ: quantize one input after the other, take each error off the inputs still to come.

Weights lie as [inputs, rows], so that the weights of one input are contiguous. Rows do not interact.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from coolbits.ptq.grids import find_scales
from coolbits.study.recipes.ptq import Grid


class Groups(NamedTuple):
    """Scales and zeros of all groups [groups, rows], float32."""

    scales: torch.Tensor
    zeros: torch.Tensor


class Swept(NamedTuple):
    """What a sweep gives: codes, uint8 [inputs, rows], and the groups they refer to."""

    codes: torch.Tensor
    groups: Groups


def sweep(
    columns: torch.Tensor,
    spread: torch.Tensor,
    tops: torch.Tensor,
    grid: Grid,
    members: list[int],
    known: Groups | None,
    block_size: int,
) -> Swept:
    """Quantize the inputs of a weight in the order given.

    Args:
        columns: the weights [inputs, rows], float64, overwritten.
        spread: as in `Factor`, float64 [inputs, inputs].
        tops: the highest code of each row, float32 [rows].
        grid: how a group's scale is found; its bits are `tops`.
        members: the group of each input.
        known: static groups. Without them groups must be neighbours of equal size; the scales of one are found when
            the sweep reaches it, from weights that carry every error so far.
        block_size: after so many inputs their errors are taken off all later ones.
    """
    inputs = len(columns)
    size = inputs // (max(members) + 1)
    errors, codes = torch.empty_like(columns), torch.empty_like(columns, dtype=torch.float32)
    found = [] if known is None else list(zip(*known, strict=True))
    levels = [_levels(*group, tops) for group in found]

    def spread_errors(start: int, middle: int, stop: int) -> None:
        columns[middle:stop].addmm_(spread[start:middle, middle:stop].T, errors[start:middle], alpha=-1)

    def quantize(place: int) -> None:
        if members[place] == len(levels):
            scale, zero = find_scales(columns[place : place + size].T, tops, grid.symmetric, grid.search)
            found.append((scale, zero))
            levels.append(_levels(scale, zero, tops))
        scale, wide_scale, lowest, highest = levels[members[place]]
        column = columns[place]
        code = torch.div(column.to(torch.float32), scale, out=codes[place]).round_().clamp_(lowest, highest)
        torch.addcmul(column, code.to(torch.float64), wide_scale, value=-1, out=errors[place])

    for start, stop in blocks(inputs, size, block_size):
        for first, middle, last in _halves(start, stop, size):
            if middle == last:
                quantize(first)
            else:
                spread_errors(first, middle, last)
        spread_errors(start, stop, inputs)
    groups = known or Groups(*(torch.stack(part) for part in zip(*found, strict=True)))
    codes += groups.zeros[torch.tensor(members, device=codes.device)]
    return Swept(codes.to(torch.uint8), groups)


def _levels(scale: torch.Tensor, zero: torch.Tensor, tops: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return a group's scale, the same in float64, and the lowest and highest multiple of it, each [rows]."""
    return scale, scale.to(torch.float64), -zero, tops - zero


def _halves(start: int, stop: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, middle, stop) of a span once its first half is done, to take its errors off the second.

    A span of one input has no second half: middle and stop are the same. The order of the spans is that of the work.
    """
    if stop - start == 1:
        yield start, stop, stop
        return
    middle = _middle(start, stop, size)
    yield from _halves(start, middle, size)
    yield start, middle, stop
    yield from _halves(middle, stop, size)


def _middle(start: int, stop: int, size: int) -> int:
    """Halve a span; one of several groups between two groups."""
    half = (stop - start) // 2
    return start + (half if stop - start <= size else max(half // size, 1) * size)


def blocks(inputs: int, group_size: int, block_size: int) -> Iterator[tuple[int, int]]:
    """Cut the inputs into blocks of at most `block_size` so that no group starts inside one and ends outside.

    A block that holds several groups holds them whole; a group longer than a block starts one. Scales are thus always
    found from weights that carry every earlier error, and the block size decides nothing but speed. (IST-DASLab/gptq
    and GPTQModel, with groups smaller than a block, find them from weights that lack the errors of the open block.)
    """
    span = max(block_size // group_size, 1) * group_size
    step = min(span, block_size)
    for outer in range(0, inputs, span):
        end = min(outer + span, inputs)
        for start in range(outer, end, step):
            yield start, min(start + step, end)
