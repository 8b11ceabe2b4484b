import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.quantized import dequantize
from coolbits.ptq.grids import find_scales, group_size_for, quantize
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.ptq import Grid

grids = st.builds(Grid, bits=st.integers(2, 8), group_size=st.sampled_from([4, 8, None]), symmetric=st.booleans())
seeds = st.integers(0, 2**16)


def random_weight(seed: int, spread: float = 1.0) -> torch.Tensor:
    return spread * torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))


def test_a_symmetric_grid_is_that_of_gptqmodel() -> None:
    scale, zero = find_scales(torch.tensor([[-3.5, 1.0, 2.0]]), 7, symmetric=True)
    assert (scale.tolist(), zero.tolist()) == ([1.0], [4.0])
    levels = dequantize(torch.arange(8, dtype=torch.uint8), scale, zero)
    assert levels.tolist() == [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]


def test_an_asymmetric_grid_spans_smallest_to_largest_and_holds_zero() -> None:
    scale, zero = find_scales(torch.tensor([[-1.0, 0.5, 6.0], [2.0, 3.0, 7.0]]), 7, symmetric=False)
    assert (scale.tolist(), zero.tolist()) == ([1.0, 1.0], [1.0, 0.0])


@given(grids, seeds)
def test_no_weight_is_further_from_its_level_than_half_a_step_unless_it_lies_beyond_the_grid(
    grid: Grid, seed: int
) -> None:
    weight = random_weight(seed)
    layer = round_to_nearest(weight, grid)
    scale = layer.scales[:, layer.group_index.long()]
    highest = scale * (grid.top - layer.zeros[:, layer.group_index.long()].float())
    error = (weight - layer.weight()).abs()
    allowed = torch.where(weight > highest, weight - highest, scale / 2)
    assert bool((error <= allowed * (1 + 1e-5) + 1e-6).all())


@given(grids, seeds)
def test_levels_are_quantized_to_themselves(grid: Grid, seed: int) -> None:
    layer = round_to_nearest(random_weight(seed), grid)
    scales, zeros = (part[:, layer.group_index.long()] for part in (layer.scales, layer.zeros))
    assert torch.equal(quantize(layer.weight(), scales, zeros, grid.top), layer.codes)


@given(st.integers(2, 8), seeds)
def test_quantizing_again_changes_nothing_where_the_grid_is_found_again(bits: int, seed: int) -> None:
    grid = Grid(bits=bits, group_size=8, symmetric=False)
    first = round_to_nearest(random_weight(seed), grid)
    second = round_to_nearest(first.weight(), grid)
    torch.testing.assert_close(second.weight(), first.weight())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-42])
def test_groups_of_nothing_become_zeros(symmetric: bool, value: float) -> None:
    layer = round_to_nearest(torch.full((2, 8), value), Grid(bits=3, group_size=4, symmetric=symmetric))
    assert torch.equal(layer.weight(), torch.zeros(2, 8))


@given(grids, seeds, st.integers(-20, 20))
def test_a_grid_scales_with_its_weights(grid: Grid, seed: int, power: int) -> None:
    weight = random_weight(seed)
    assert torch.equal(round_to_nearest(weight * 2.0**power, grid).codes, round_to_nearest(weight, grid).codes)


def test_bits_may_differ_between_groups() -> None:
    weights = torch.tensor([[-3.5, 1.0], [-7.5, 2.0]])
    scale, zero = find_scales(weights, torch.tensor([7.0, 15.0]), symmetric=True)
    assert (scale.tolist(), zero.tolist()) == ([1.0, 1.0], [4.0, 8.0])


def test_a_group_size_that_does_not_divide_the_inputs_is_refused_by_name() -> None:
    with pytest.raises(CoolbitsError, match=r"5 does not divide the 16 inputs of blocks\.0\.mlp"):
        group_size_for(Grid(bits=3, group_size=5), 16, "blocks.0.mlp")
