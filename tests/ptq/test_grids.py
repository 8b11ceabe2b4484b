import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.layers import dequantize
from coolbits.ptq.grids import find_scales, group_size_for, quantize
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import Grid, ScaleSearch

grids = st.builds(Grid, bits=st.integers(2, 8), group_size=st.sampled_from([4, 8, None]), symmetric=st.booleans())
seeds = st.integers(0, 2**16)
searches = st.builds(
    ScaleSearch,
    norm=st.sampled_from([1.0, 2.0, 2.4]),
    steps=st.sampled_from([5, 40]),
    smallest=st.sampled_from([0.2, 0.5]),
)


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


@settings(deadline=None)
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


def least_error(group: np.ndarray, grid: Grid, search: ScaleSearch) -> float:
    """Return the error of the best candidate for one group, in float64."""
    low, high = (abs(group).max(),) * 2 if grid.symmetric else (max(-group.min(), 0), max(group.max(), 0))
    errors = []
    for taken in range(round((1 - search.smallest) * search.steps)):
        scale = (1 - taken / search.steps) * (low + high) / grid.top
        zero = (grid.top + 1) // 2 if grid.symmetric else np.round(low / ((low + high) / grid.top))
        levels = scale * (np.clip(np.round(group / scale) + zero, 0, grid.top) - zero)
        errors.append((abs(levels - group) ** search.norm).sum())
    return min(errors)


@settings(deadline=None)
@given(st.integers(2, 4), st.booleans(), searches, seeds)
def test_a_search_finds_the_candidate_of_least_error(
    bits: int, symmetric: bool, search: ScaleSearch, seed: int
) -> None:
    grid = Grid(bits=bits, group_size=8, symmetric=symmetric, search=search)
    weight = random_weight(seed)
    errors = ((round_to_nearest(weight, grid).weight() - weight).abs() ** search.norm).reshape(-1, 8).sum(1)
    expected = [least_error(group, grid, search) for group in weight.reshape(-1, 8).double().numpy()]
    np.testing.assert_allclose(errors, expected, rtol=1e-4)


@settings(deadline=None)
@given(grids, searches, seeds)
def test_no_search_makes_the_error_larger(grid: Grid, search: ScaleSearch, seed: int) -> None:
    weight = random_weight(seed)
    plain, searched = (
        round_to_nearest(weight, own).weight() for own in (grid, grid.model_copy(update={"search": search}))
    )
    assert float(((searched - weight).abs() ** search.norm).sum()) <= float(
        ((plain - weight).abs() ** search.norm).sum()
    ) * (1 + 1e-5)


def test_a_search_gives_up_an_outlier_for_many_small_weights() -> None:
    group = torch.cat([torch.linspace(-1, 1, 63), torch.tensor([3.0])])[None]
    scale, _ = find_scales(group, 7, symmetric=True, search=ScaleSearch())
    assert 2 / 7 < float(scale) < 6 / 7


@given(st.integers(2, 8), seeds)
def test_quantizing_again_changes_nothing_where_the_grid_is_found_again(bits: int, seed: int) -> None:
    grid = Grid(bits=bits, group_size=8, symmetric=False)
    first = round_to_nearest(random_weight(seed), grid)
    second = round_to_nearest(first.weight(), grid)
    torch.testing.assert_close(second.weight(), first.weight())


def test_a_symmetric_grid_is_not_found_again_and_changes_weights_each_time() -> None:
    """The lowest level lies 4 steps from zero where the largest weight lay 3.5; the highest, 3 steps."""
    grid = Grid(bits=3, group_size=3)
    layers = [round_to_nearest(torch.tensor([[-3.5, 1.0, 2.0], [3.5, 1.0, 2.0]]), grid)]
    layers.append(round_to_nearest(layers[0].weight(), grid))
    assert [layer.scales[:, 0].tolist() for layer in layers] == [[1, 1], pytest.approx([8 / 7, 6 / 7])]
    assert layers[0].weight().tolist() == [[-4, 1, 2], [3, 1, 2]]
    # Of the lowest level, half way between two again, either may come.
    assert layers[1].weight()[0, 1:].tolist() == pytest.approx([8 / 7, 16 / 7])
    assert layers[1].weight()[1].tolist() == pytest.approx([18 / 7, 6 / 7, 12 / 7])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-42])
@pytest.mark.parametrize("search", [None, ScaleSearch()])
def test_groups_of_nothing_become_zeros(symmetric: bool, value: float, search: ScaleSearch | None) -> None:
    grid = Grid(bits=3, group_size=4, symmetric=symmetric, search=search)
    layer = round_to_nearest(torch.full((2, 8), value), grid)
    assert torch.equal(layer.weight(), torch.zeros(2, 8))


@settings(deadline=None)
@given(grids, st.sampled_from([None, ScaleSearch()]), seeds, st.integers(-60, 60))
def test_a_grid_scales_with_its_weights(grid: Grid, search: ScaleSearch | None, seed: int, power: int) -> None:
    grid, weight = grid.model_copy(update={"search": search}), random_weight(seed)
    assert torch.equal(round_to_nearest(weight * 2.0**power, grid).codes, round_to_nearest(weight, grid).codes)


def test_bits_may_differ_between_groups() -> None:
    weights = torch.tensor([[-3.5, 1.0], [-7.5, 2.0]])
    scale, zero = find_scales(weights, torch.tensor([7.0, 15.0]), symmetric=True)
    assert (scale.tolist(), zero.tolist()) == ([1.0, 1.0], [4.0, 8.0])


def test_a_group_size_that_does_not_divide_the_inputs_is_refused_by_name() -> None:
    with pytest.raises(CoolbitsError, match=r"5 does not divide the 16 inputs of blocks\.0\.mlp"):
        group_size_for(Grid(bits=3, group_size=5), 16, "blocks.0.mlp")
