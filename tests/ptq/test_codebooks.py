import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coolbits.models.codebooks import TABLES, DoubleScales
from coolbits.ptq.codebooks import quantize_by_codebook
from coolbits.study.recipes.methods import Codebook

KINDS = ["nf4", "fp4"]

# Zeros or normal numbers: products of a table's values with smaller ones lose digits.
numbers = st.one_of(st.just(0.0), st.floats(2**-100, 2**100, width=32), st.floats(-(2**100), -(2**-100), width=32))
weights = st.integers(1, 6).flatmap(
    lambda rows: st.integers(1, 9).flatmap(
        lambda columns: st.lists(numbers, min_size=rows * columns, max_size=rows * columns).map(
            lambda values: torch.tensor(values).view(rows, columns)
        )
    )
)


@pytest.mark.parametrize("kind", KINDS)
@given(weights, st.sampled_from([1, 4, 64]))
def test_each_weight_gets_the_nearest_value_of_the_table_times_the_largest_of_its_block(
    kind: str, weight: torch.Tensor, block_size: int
) -> None:
    layer = quantize_by_codebook(weight, Codebook(kind=kind, block_size=block_size))
    for block, found in zip(
        weight.flatten().split(block_size), layer.weight().flatten().split(block_size), strict=True
    ):
        levels = (TABLES[kind] * block.abs().max()).double()  # every output is one of them
        assert torch.isin(found.double(), (TABLES[kind] * block.abs().max()).double()).all()
        least = (block.double()[:, None] - levels).abs().amin(1)
        assert ((block.double() - found.double()).abs() <= least + 1e-6 * float(block.abs().max())).all()


@pytest.mark.parametrize("kind", KINDS)
@given(weights, st.sampled_from([1, 4, 64]))
def test_quantizing_twice_changes_nothing(kind: str, weight: torch.Tensor, block_size: int) -> None:
    method = Codebook(kind=kind, block_size=block_size)
    once = quantize_by_codebook(weight, method).weight()
    assert torch.equal(quantize_by_codebook(once, method).weight(), once)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tie_goes_to_the_lower_value(kind: str) -> None:
    values = TABLES[kind].unique()
    weight = torch.cat([(values[1:] + values[:-1]) / 2, torch.ones(1)])[None]
    assert torch.equal(quantize_by_codebook(weight, Codebook(kind=kind)).weight()[0], values)


def test_a_weight_of_zeros_stays_zero() -> None:
    for kind in KINDS:
        for double in (False, True):
            layer = quantize_by_codebook(torch.zeros(4, 64), Codebook(kind=kind, double=double))
            assert not layer.weight().any()


def test_scales_rounded_themselves_stay_close_and_take_a_quarter() -> None:
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    plain, double = (quantize_by_codebook(weight, Codebook(kind="nf4", double=each)) for each in (False, True))
    assert torch.equal(plain.codes, double.codes)
    assert isinstance(plain.scales, torch.Tensor)
    assert isinstance(double.scales, DoubleScales)
    largest = (plain.scales - plain.scales.mean()).abs().max()
    # The codebook's entries lie 0.014 of the largest apart at most.
    assert float((double.scales.values() - plain.scales).abs().max()) <= 0.0071 * float(largest)
    assert double.scales.offset == plain.scales.mean()
    assert (len(double.scales.codes), len(double.scales.scales)) == (1024, 4)


def test_normal_weights_are_closer_in_nf4_than_in_fp4() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    normal, float4 = (
        float((quantize_by_codebook(weight, Codebook(kind=kind)).weight() - weight).norm()) for kind in KINDS
    )
    assert normal < 0.9 * float4
