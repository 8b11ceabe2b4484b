import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.hqq import quantize_half_quadratic
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import HQQ, Grid, ScaleSearch


def recipe(bits: int = 3, group_size: int | None = 16, **knobs: object) -> HQQ:
    return HQQ(grid=Grid(bits=bits, group_size=group_size, symmetric=False), **knobs)


def heavy_tailed(outputs: int, inputs: int) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)) ** 3


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=8, max_size=8), min_size=1, max_size=4),
    st.integers(2, 8),
)
def test_every_weight_lies_on_a_grid_that_starts_at_a_real_number(rows: list[list[float]], bits: int) -> None:
    weight = torch.tensor(rows)
    layer = quantize_half_quadratic(weight, recipe(bits, 4))
    codes = layer.codes.float()
    assert int(layer.codes.max()) < 2**bits
    assert layer.zeros.dtype == torch.float32
    index = layer.group_index.long()
    assert torch.equal(layer.weight(), (codes - layer.zeros[:, index]) * layer.scales[:, index])


def test_normal_weights_are_closer_than_on_the_grid_that_spans_them() -> None:
    weight = 0.02 * torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    for bits in (2, 3, 4):
        method = recipe(bits, 64)
        solved = (quantize_half_quadratic(weight, method).weight() - weight).abs()
        spanned = (round_to_nearest(weight, method.grid).weight() - weight).abs()
        assert float(solved.mean()) < 0.97 * float(spanned.mean())


def test_small_errors_are_no_outliers_so_that_each_group_has_the_mean_it_had() -> None:
    weight = 0.02 * torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    layer = quantize_half_quadratic(weight, recipe(4, 64, steps=100))
    groups, found = (each.view(-1, 64).mean(1) for each in (weight, layer.weight()))
    # Save for the few groups where the last zero point moved a weight to another code.
    assert float((groups - found).abs().median()) < 1e-4 * float((weight - layer.weight()).abs().mean())


def test_each_step_is_the_proximal_one() -> None:
    """One step on one group, in float64."""
    weight = torch.tensor([[-1.0, 0.4, 0.45, 2.0]])
    layer = quantize_half_quadratic(weight, recipe(2, 4, steps=1))
    values = weight.double()[0]
    density = 3 / 3.0
    codes = (values * density + 1.0).round().clamp(0, 3)
    error = values - (codes - 1.0) / density
    size = error.abs()
    sparse = (size - size ** (0.7 - 1) / 10).clamp(min=0) * error.sign()
    zero = (codes - (values - sparse) * density).mean()
    torch.testing.assert_close(layer.zeros.double(), zero.view(1, 1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(layer.scales.double(), torch.tensor([[1 / density]]).double())


def test_it_stops_when_the_error_no_longer_falls() -> None:
    weight = heavy_tailed(8, 64)
    many, more = (quantize_half_quadratic(weight, recipe(steps=steps)) for steps in (200, 400))
    assert torch.equal(many.weight(), more.weight())
    assert not torch.equal(quantize_half_quadratic(weight, recipe(steps=1)).zeros, many.zeros)


def test_four_bits_start_from_whole_zero_points_unless_told() -> None:
    weight = heavy_tailed(8, 64)
    assert [recipe(bits).rounds_start for bits in (2, 3, 4, 8)] == [False, False, True, False]
    default, real = (quantize_half_quadratic(weight, recipe(4, steps=1, round_start=each)) for each in (None, False))
    assert not torch.equal(default.zeros, real.zeros)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_quantizing_twice_changes_nothing_where_both_ends_of_the_grid_are_used(bits: int) -> None:
    """Then the grid spans what it spanned; zero points, moved to the mean, are those that give the weights."""
    weight = 0.02 * torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    once = quantize_half_quadratic(weight, recipe(bits, 64))
    twice = quantize_half_quadratic(once.weight(), recipe(bits, 64))
    groups = once.codes.view(64, -1, 64)
    spanned = (groups.amin(-1) == 0) & (groups.amax(-1) == 2**bits - 1)  # [outputs, groups]
    assert float(spanned.float().mean()) > 0.9
    kept = spanned.repeat_interleave(64, 1)
    assert torch.equal(twice.codes[kept], once.codes[kept])
    torch.testing.assert_close(twice.weight()[kept], once.weight()[kept], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_group_of_one_value_keeps_it(value: float) -> None:
    weight = torch.full((2, 16), value)
    layer = quantize_half_quadratic(weight, recipe(3))
    torch.testing.assert_close(layer.weight(), weight, rtol=1e-6, atol=0)
    assert (layer.scales == 1).all()  # as the library's


def test_no_group_is_given_finer_levels_than_the_library_gives() -> None:
    """At 4 bits one that spans 5e-4 would have levels 3.3e-5 apart."""
    layer = quantize_half_quadratic(torch.linspace(0, 5e-4, 16)[None], recipe(4))
    torch.testing.assert_close(layer.scales, torch.full((1, 1), 5e-5))


def test_a_grid_that_hqq_would_not_use_is_refused() -> None:
    for grid in (Grid(bits=4), Grid(bits=4, symmetric=False, search=ScaleSearch())):
        with pytest.raises(ValidationError, match="symmetric must be false and search null"):
            HQQ(grid=grid)
    with pytest.raises(CoolbitsError, match="48 does not divide the 64 inputs"):
        quantize_half_quadratic(torch.randn(4, 64), recipe(4, 48))
