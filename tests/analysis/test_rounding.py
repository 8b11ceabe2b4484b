"""What codes do to a state: the bounds hold for any state, and are reached."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.analysis.rounding import coarseness, round_trip, rounding_values
from coolbits.optim.codebook import dynamic_codebook
from coolbits.optim.codecs import Blockwise

CODECS = [Blockwise(kind, signed, 8) for kind in ("linear", "dynamic") for signed in (True, False)]


def values(state: torch.Tensor, codec: Blockwise) -> dict[str, tuple[float, float | None]]:
    return {item.quantity: (item.value, item.bound) for item in rounding_values(round_trip(state, codec))}


@pytest.mark.parametrize("codec", CODECS, ids=str)
@settings(max_examples=60, deadline=None)
@given(
    exponents=st.lists(st.floats(-12, 12), min_size=1, max_size=30),
    signs=st.integers(0, 2**30 - 1),
)
def test_no_entry_is_farther_off_than_its_block_allows(codec: Blockwise, exponents: list[float], signs: int) -> None:
    state = torch.tensor([10.0**exponent for exponent in exponents])
    if codec.signed:
        state = state * torch.tensor([1.0 if signs >> place & 1 else -1.0 for place in range(len(exponents))])
    for value, bound in values(state, codec).values():
        assert bound is not None and value <= bound * (1 + 1e-4)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_the_bound_is_reached(codec: Blockwise) -> None:
    fine = torch.linspace(-1 if codec.signed else 0, 1, 200_001)
    value, bound = values(fine, Blockwise(codec.kind, codec.signed, len(fine)))["largest_error"]
    assert value == pytest.approx(bound, rel=1e-2)


def test_the_worst_of_linear_codes_is_half_a_step() -> None:
    assert coarseness(Blockwise("linear", True)) == 1 / 254
    assert coarseness(Blockwise("linear", False)) == 1 / 510


def test_the_worst_of_a_codebook_is_half_its_widest_gap() -> None:
    gaps = dynamic_codebook(True).double().diff()
    assert coarseness(Blockwise("dynamic", True)) == pytest.approx(float(gaps.max()) / 2)


def test_a_short_last_block_counts_its_own_elements() -> None:
    rounded = round_trip(torch.ones(20), Blockwise("linear", True, 8))
    assert rounded.sizes.tolist() == [8, 8, 4]
    assert rounded.farthest == pytest.approx(20**0.5 / 254)


def test_an_all_zero_block_is_exact() -> None:
    state = torch.cat([torch.zeros(8), torch.ones(8)])
    assert values(state, Blockwise("linear", True, 8))["largest_error"][0] == pytest.approx(0, abs=1e-7)


def test_a_block_too_small_for_float32_has_no_finest_step() -> None:
    state = torch.cat([torch.full((8,), 1e-43), torch.linspace(-1, 1, 8)])
    assert values(state, Blockwise("linear", True, 8))["largest_error"][0] <= 1 / 254
    assert "largest_error" not in values(torch.full((8,), 1e-43), Blockwise("linear", True, 8))
