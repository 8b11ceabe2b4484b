"""The table of cells: what the kernels look up, told in PyTorch."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from coolbits.optim.codebook import middles, nearest
from coolbits.optim.kernels.cells import CELLS, LEAST, cells

EITHER = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])


def told(numbers: Tensor, ratios: Tensor, signed: bool) -> Tensor:
    """The codes that the cells of these numbers tell of the ratios, float32."""
    turn = -(ratios < 0).int()
    sizes = ratios.abs().clamp(min=LEAST)
    cell = cells(signed)[((numbers ^ turn) & 1023).long()]
    above = cell - ((sizes.view(torch.int32) ^ turn) << 8) < 0
    return (cell + above) & 255


def numbers_of(sizes: Tensor, signed: bool) -> Tensor:
    """The fourth roots of magnitudes as parts of a cell, exactly enough."""
    return sizes.double().clamp(min=LEAST) ** 0.25 * CELLS[signed]


def both_signs(sizes: Tensor, signed: bool) -> Tensor:
    return torch.cat([sizes, -sizes]) if signed else sizes


@EITHER
def test_no_middle_is_near_the_edge_of_a_cell_or_below_the_least_magnitude(signed: bool) -> None:
    sizes = middles(signed).abs()
    numbers = numbers_of(sizes, signed)
    assert sizes.min() > LEAST
    assert (numbers - numbers.round()).abs().max() < 0.5 - 0.009
    places = numbers.round() * middles(signed).sign()
    assert len(places.unique()) == 255


@EITHER
def test_cells_tell_the_nearest_entry_at_every_place_and_a_hundredth_beyond_their_edges(signed: bool) -> None:
    """Where the rounding of a root may take a ratio to the next cell, that one tells the same code."""
    inside = torch.linspace(-0.509, 0.509, 51, dtype=torch.float64)
    first = int(numbers_of(torch.tensor([LEAST]), signed).round())
    numbers = torch.arange(first, CELLS[signed] + 1)
    sizes = (((numbers[:, None] + inside) / CELLS[signed]) ** 4).clamp(LEAST, 1).float()
    ratios = both_signs(sizes.flatten(), signed)
    own = both_signs(numbers, signed).abs().repeat_interleave(len(inside))
    assert torch.equal(told(own, ratios, signed), nearest(ratios, signed).int())


@EITHER
def test_cells_tell_on_which_side_of_a_middle_a_float_is(signed: bool) -> None:
    ends = torch.tensor([-torch.inf, torch.inf])
    ratios = torch.cat([middles(signed), *(middles(signed).nextafter(end) for end in ends), torch.zeros(1)])
    numbers = numbers_of(ratios.abs(), signed).round().int()
    assert torch.equal(told(numbers, ratios, signed), nearest(ratios, signed).int())
