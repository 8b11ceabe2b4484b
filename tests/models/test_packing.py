import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coolbits.models.packing import pack, unpack


@st.composite
def codes_and_bits(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    bits = draw(st.integers(1, 8))
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 40)))
    values = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1)))
    return torch.from_numpy(values), bits


@given(codes_and_bits())
def test_unpacking_gives_back_what_was_packed(case: tuple[torch.Tensor, int]) -> None:
    codes, bits = case
    assert torch.equal(unpack(pack(codes, bits), bits, codes.shape[1]), codes)


@given(codes_and_bits())
def test_packing_is_dense(case: tuple[torch.Tensor, int]) -> None:
    codes, bits = case
    assert pack(codes, bits).shape == (codes.shape[0], -(-codes.shape[1] * bits // 8))


def test_the_least_significant_bit_comes_first() -> None:
    codes = torch.tensor([[0b001, 0b010, 0b111]], dtype=torch.uint8)
    assert pack(codes, 3).tolist() == [[0b11_010_001, 0b1]]


def test_a_code_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="8 does not fit 3 bits"):
        pack(torch.tensor([[8]], dtype=torch.uint8), 3)
