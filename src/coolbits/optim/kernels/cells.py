"""The table by which kernels find the dynamic code of a number with one look-up: exactly, whatever rounding does to it.

The fourth root of a magnitude, times 288 (unsigned: 576), rounded, is the number of its cell. In roots the 255 middles
between entries lie nearly evenly: at most one to a cell, and none within 0.009 of a cell from an edge, which is a
hundred times what the rounding of the roots can do. So beside an edge two cells agree. Search would make eight look-ups
one after the other, and the least of seven lines (`codebook.nearest`) takes two dozen instructions with its look-up
where this takes 13.
"""

import torch
from torch import Tensor

from coolbits.optim.codebook import middles

CELLS = {True: 288, False: 576}  # from 0 to 1, by whether codes are signed
LEAST = 2.0**-23  # magnitudes below are taken for it: the smallest middle is larger


def cells(signed: bool) -> Tensor:
    """Return the cells, int32 [1024]; those of negative ratios from the end, cell c of magnitudes at 1023 - c.

    A cell's lowest 8 bits are the code of its ratios up to the middle in it. The other 24 are the last ones of that
    middle's bits, inverted if it is negative, so that they are in the order of floats. A ratio is above if its own bits
    are; as no cell spans two octaves, the sign of the difference modulo 2**24 tells. Without a middle it is one beyond
    the cell's upper end.
    """
    numbers = torch.arange(512 if signed else 1024, dtype=torch.float64)
    lower, upper = (((numbers + side) / CELLS[signed]).pow(4).clamp(min=LEAST) for side in (-0.5, 0.5))
    if signed:
        lower, upper = torch.cat([lower, -upper.flip(0)]), torch.cat([upper, -lower.flip(0)])
    points = torch.cat([middles(signed), torch.tensor([torch.inf])])
    code = torch.searchsorted(points.double(), lower)  # the middles below the cell
    middle = torch.minimum(points[code], (upper + 0.01 * upper.abs()).float())
    order = middle.abs().view(torch.int32) ^ -(middle < 0).int()
    return (order << 8) + code.int()
