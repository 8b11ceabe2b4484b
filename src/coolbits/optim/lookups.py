"""The tables by which the compiled updates decode and encode dynamic codes: what `Dynamic` in codecs.cpp looks up."""

from functools import cache
from math import frexp

import torch
from torch import Tensor

from coolbits.optim.codebook import dynamic_codebook, middles

_STRETCH = 379 / 256  # `Dynamic::stretch` in codecs.cpp


@cache
def lookups(signed: bool) -> Tensor:
    """Return what `Dynamic` in codecs.cpp looks up, as int32.

    These are entries, middles above them (last: inf), cells, spans, and the entries once more, byte by byte.
    """
    above = torch.cat([middles(signed), torch.tensor([torch.inf])])
    numbers = [dynamic_codebook(signed), above]
    planes = dynamic_codebook(signed).view(torch.uint8).view(256, 4).T.flatten().view(torch.int32)
    return torch.cat([*(part.view(torch.int32) for part in numbers), cells(signed), _spans(signed), planes])


def cells(signed: bool) -> Tensor:
    """Return a cell for all float32 with the same leading bits, 15 (16 if unsigned), int32 [2^15 or 2^16].

    A ratio is looked up times 379 / 256: so no cell has two middles, and every middle is a thousand float32 away from
    its cell's edges. Without that factor some would be edges. A cell has 8 bits each for the code of its smallest and
    of its largest magnitudes, the same code where there is no middle, then 16 for those that follow the middle's
    leading ones. From these, five float32 are taken: the middle is somewhere in the next ten.
    """
    leading = 15 if signed else 16
    entries = dynamic_codebook(signed).double()
    bits = ((entries[1:] + entries[:-1]) / 2 * _STRETCH).float().view(torch.int32).long() % 2**32
    cell, count = bits >> 32 - leading, 2**leading
    middle = torch.zeros(count, dtype=torch.int64).index_fill(0, cell, 1)
    rising = torch.cat([torch.arange(count // 2, count).flip(0), torch.arange(count // 2)])  # the first bit is the sign
    low = torch.empty_like(middle)
    low[rising] = middle[rising].cumsum(0) - middle[rising]
    negative = torch.arange(count) >= count // 2
    near, far = low + middle * negative, low + middle * ~negative
    middle[cell] = bits % 2 ** (32 - leading) - 5 >> 16 - leading
    return (middle << 16 | far << 8 | near).to(torch.int32)


def _spans(signed: bool) -> Tensor:
    """Return how a magnitude becomes a code without a look-up in cells, as int32 [5 * 16].

    A span is the entry 0 alone, the entries of a power of ten, or 1 alone; between two spans is an edge, the middle of
    their neighbours. The n entries of a power are the middles of n equal parts of 0.1..1 times it, and n is also how
    many entries all lower powers have, with one for 0 (two if unsigned). So a magnitude x has the place n * u, rounded
    down, with u = x / (0.9 * power) + 8 / 9, from 1 to 2. A span's number is how far a float32 u is turned to the left
    to have that place as its last bits (its exponent's last bit is the 1 before the point): 9 and the logarithm of n.

    Magnitudes are looked up times 379 / 256, as in `cells`. By span modulo 16, the edge above it (inf: none). By a
    float's exponent modulo 32, the span that its octave begins in; an octave has one edge at most, not near its ends.
    By span modulo 16, the factor of u. Then the least magnitude that is looked up, and the summand of u.

    A summand larger by 2^-19 makes numbers in doubt those with eleven zeros (ten if unsigned) after the place's bits or
    after one more, at most 2^-18 above it: an edge's u is halfway between two places in the lower span, and beyond 2,
    so that there is one bit less behind the point. The two spans of one entry have factors that make it so: 0's has its
    edge at 2, the edge of 1 is at 1. An edge is shifted by six float32 into its other span: so all magnitudes that
    rounding may take across it are in doubt.
    """
    entries = dynamic_codebook(signed).double()
    entries = entries[entries >= 0]
    counts = [(1 if signed else 2) << power for power in range(7)]  # entries a power of ten, from 1e-7 to 1
    firsts = [1 + sum(counts[:power]) for power in range(7)] + [len(entries) - 1]
    halves = [_STRETCH * float(entries[first - 1] + entries[first]) / 2 for first in firsts]
    shifts = [7e-7] * 7 + [-7e-7]
    edges = [half * (1 + shift) for half, shift in zip(halves, shifts, strict=True)]
    octaves = [frexp(edge)[1] - 1 for edge in edges]
    summand = 8 / 9 + 2**-19
    slopes = [10.0 ** (6 - power) / (0.9 * _STRETCH) for power in range(7)]
    slopes = [(2 + 2**-11 - summand) / halves[0], *slopes, (1 + 2**-20 - summand) / halves[-1]]
    zero = 8 if signed else 9
    above, factor = torch.full((16,), torch.inf, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)
    for place, slope in enumerate(slopes):
        factor[(zero + place) % 16] = slope
    for place, edge in enumerate(edges):
        above[(zero + place) % 16] = edge
    below = torch.zeros(32, dtype=torch.int32)
    for octave in range(-23, 1):
        below[(octave + 127) % 32] = zero + sum(edge < octave for edge in octaves)
    ends = torch.tensor([2.0**-23, summand, *[0.0] * 14], dtype=torch.float64)  # a register each: see `lookups`
    above, factor, ends = (part.float().view(torch.int32) for part in (above, factor, ends))
    return torch.cat([above, below, factor, ends])
