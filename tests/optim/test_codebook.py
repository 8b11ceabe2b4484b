"""The codebooks have the entries of the paper, and the nearest of them is found exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coolbits.optim.codebook import dynamic_codebook, nearest

SIGNS = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])


def brute_force(ratios: Tensor, signed: bool) -> Tensor:
    """The lowest index among the entries at the smallest distance, which float64 holds exactly enough to compare."""
    distances = (ratios.double()[:, None] - dynamic_codebook(signed).double()).abs()
    return distances.argmin(1)


def middles(signed: bool) -> Tensor:
    """The float32 numbers around each middle of two entries, three on either side."""
    entries = dynamic_codebook(signed).double()
    values = [((entries[1:] + entries[:-1]) / 2).float()]
    for direction in (-2.0, 2.0):
        value = values[0]
        for _ in range(3):
            value = value.nextafter(torch.tensor(direction))
            values.append(value)
    return torch.cat(values)


class TestEntries:
    @SIGNS
    def test_there_are_256_in_rising_order(self, signed: bool) -> None:
        entries = dynamic_codebook(signed)
        assert entries.shape == (256,) and entries.dtype == torch.float32
        assert (entries.diff() > 0).all() and entries[-1] == 1

    def test_the_signed_ones(self) -> None:
        entries = dynamic_codebook(True)
        assert entries[127] == 0
        assert entries[0].item() == pytest.approx(-0.99296875, abs=1e-7)
        assert entries[128].item() == pytest.approx(5.5e-7, rel=1e-6)
        assert torch.equal(entries[:127], -entries[128:255].flip(0)), "all but 1 have a negative"

    def test_the_unsigned_ones(self) -> None:
        entries = dynamic_codebook(False)
        assert entries[0] == 0
        assert entries[1].item() == pytest.approx(3.25e-7, rel=1e-6)
        assert entries[254].item() == pytest.approx(0.996484375, abs=1e-7)

    @SIGNS
    def test_a_decade_has_twice_the_entries_of_the_one_below(self, signed: bool) -> None:
        entries = dynamic_codebook(signed)
        counts = [int(((entries > 10.0 ** (d - 7)) & (entries < 10.0 ** (d - 6))).sum()) for d in range(7)]
        assert counts == [2 ** (d + (not signed)) for d in range(7)]


class TestNearest:
    @SIGNS
    def test_entries_are_their_own(self, signed: bool) -> None:
        assert nearest(dynamic_codebook(signed), signed).tolist() == list(range(256))

    @SIGNS
    def test_it_is_exact_around_every_middle(self, signed: bool) -> None:
        ratios = middles(signed)
        assert torch.equal(nearest(ratios, signed).long(), brute_force(ratios, signed))

    @SIGNS
    def test_it_is_exact_for_ratios_of_every_magnitude(self, signed: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        ratios = 10 ** (-10 * torch.rand(20_000, generator=generator))
        if signed:
            ratios *= torch.randint(2, ratios.shape, generator=generator) * 2 - 1
        assert torch.equal(nearest(ratios, signed).long(), brute_force(ratios, signed))

    @SIGNS
    @given(data=st.data())
    def test_it_is_exact_for_any_float32(self, signed: bool, data: st.DataObject) -> None:
        ratio = data.draw(st.floats(-1 if signed else 0, 1, width=32))
        ratios = torch.tensor([ratio])
        assert torch.equal(nearest(ratios, signed).long(), brute_force(ratios, signed))

    def test_of_two_entries_equally_near_it_takes_the_lower(self) -> None:
        """Zero lies half way between no two entries, but the middle of 0 and the smallest is a float32."""
        entries = dynamic_codebook(True)
        middle = entries[128] / 2
        assert nearest(torch.stack([middle, -middle]), True).tolist() == [127, 126]

    @SIGNS
    def test_the_ends_and_zeros_of_both_signs(self, signed: bool) -> None:
        ratios = torch.tensor([1.0, 0.0, -0.0, 1e-45, -1.0 if signed else 0.0])
        assert torch.equal(nearest(ratios, signed).long(), brute_force(ratios, signed))

    @SIGNS
    def test_the_shape_is_kept(self, signed: bool) -> None:
        codes = nearest(torch.rand(3, 5, 2), signed)
        assert codes.shape == (3, 5, 2) and codes.dtype == torch.uint8
