"""The dynamic codebooks of 8-bit optimizers (Dettmers et al. 2022, arXiv 2110.02861) and the entry nearest to a number.

An entry has a decade and a place within it: decade d = 0..6 holds the middles of 2^d equal parts (2^(d+1) if unsigned)
of 0.1..1, times 10^(d-6). Small numbers are kept to within their magnitude, large ones finely.
"""

from functools import cache

import torch
from torch import Tensor

_DECADES = 7
# The smallest middle between two entries is 1.6e-7: below 2^-23 everything is nearest to zero.
_SMALLEST_EXPONENT, _LARGEST_EXPONENT, _BIAS, _MANTISSA_BITS = -23, 0, 127, 23


@cache
def dynamic_codebook(signed: bool) -> Tensor:
    """Return the 256 entries in rising order, float32; to be read only.

    Signed they reach from -0.99297 to 1 (there is no -1) with zero at 127 and smallest positive entry 5.5e-7; unsigned
    from 0 to 1 with smallest positive entry 3.25e-7. Bit for bit those of bitsandbytes' `create_dynamic_map`.
    """
    entries = [0.0, 1.0]
    for decade in range(_DECADES):
        parts = 2**decade if signed else 2 ** (decade + 1)
        edges = torch.linspace(0.1, 1, parts + 1, dtype=torch.float32, device="cpu")
        middles = 10.0 ** (decade - _DECADES + 1) * ((edges[:-1] + edges[1:]) / 2)
        entries += middles.tolist() + ((-middles).tolist() if signed else [])
    return torch.tensor(sorted(entries), dtype=torch.float32, device="cpu")


def nearest(ratios: Tensor, signed: bool) -> Tensor:
    """Return the index (uint8) of the entry nearest to each float32 ratio in [-1, 1], of two the lower; exactly.

    One look-up (see `nearest_table`) in place of a binary search. Unsigned, ratios must not be negative.
    """
    table, bits = nearest_table(signed).to(ratios.device), ratios.view(torch.int32)
    shift, first, cells = cell_layout(signed)
    cell = ((bits & 0x7FFFFFFF) >> shift).clamp(first, first + cells - 1) - first
    if signed:
        cell = cell - (bits >> 31) * cells
    offset = (bits ^ (bits >> 31)) & ((1 << shift) - 1)
    return ((table[cell] + offset) >> shift).to(torch.uint8)


@cache
def nearest_table(signed: bool) -> Tensor:
    """Return what finds the nearest entry of a ratio from its bits, int32 [cells], for negative ratios [cells] more.

    The leading bits of a float32 name its cell, an interval so small that the nearest entry changes at one place in it
    at most. `table[cell]` plus the other bits, `shift` of them, carries into bit `shift` beyond that place; the bits
    from there on are the index of the entry. Negative numbers have their bits inverted, for an order like that of the
    others.
    """
    shift, first, cells = cell_layout(signed)
    places = _ordered(middles(signed).view(torch.int32)).long()  # [255], the last number of each entry
    keys = torch.arange(first, first + cells, device="cpu")
    starts = (torch.cat([keys, ~keys]) if signed else keys) << shift
    index, index_behind = (torch.searchsorted(places, edge) for edge in (starts, starts + (1 << shift)))
    change = (index_behind > index) * ((1 << shift) - 1 - (places[index.clamp(max=len(places) - 1)] - starts))
    if (index_behind - index).max() > 1:
        raise ValueError("two middles fall into one cell")
    return ((index << shift) + change).int()


def cell_layout(signed: bool) -> tuple[int, int, int]:
    """Return by how many bits a float32's magnitude is shifted to give its cell, the first cell, and their number.

    The ratios +1 and -1 have a cell of their own, the last.
    """
    bits = 6 if signed else 7
    first = (_BIAS + _SMALLEST_EXPONENT) << bits
    return _MANTISSA_BITS - bits, first, ((_BIAS + _LARGEST_EXPONENT) << bits) - first + 1


def middles(signed: bool) -> Tensor:
    """Return the middles between entries, rounded down: a float32 is above one if it is above that exactly."""
    entries = dynamic_codebook(signed).double()
    exact = (entries[1:] + entries[:-1]) / 2
    rounded = exact.float()
    return torch.where(rounded.double() > exact, rounded.nextafter(torch.tensor(-torch.inf, device="cpu")), rounded)


def _ordered(bits: Tensor) -> Tensor:
    """Return the bits of float32 numbers as integers in the order of the numbers."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
