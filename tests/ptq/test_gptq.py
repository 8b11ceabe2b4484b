"""GPTQ against a plain OBQ written from the equations, against exhaustive search, and by its properties."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.gptq import gptq, gptq_together
from coolbits.ptq.ledger import output_loss
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import GPTQ, Grid, ScaleSearch

Layer = Callable[[int, int, int], tuple[torch.Tensor, torch.Tensor]]


ORDERS = st.sampled_from(["natural", "activation", "group-aware"])


def recipe(
    bits: int = 3,
    group_size: int | None = 8,
    symmetric: bool = True,
    search: ScaleSearch | None = None,
    **knobs: object,
) -> GPTQ:
    return GPTQ(grid=Grid(bits=bits, group_size=group_size, symmetric=symmetric, search=search), **knobs)


def correlated(outputs: int, inputs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight and a Hessian, as the fixture `layer` does, where hypothesis allows no fixture."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(4 * inputs, inputs, generator=generator, dtype=torch.float64)
    vectors = vectors @ torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    return torch.randn(outputs, inputs, generator=generator), vectors.T @ vectors / len(vectors)


def grid_of(group: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and zero of each row of `group`, written from the definition in `Grid`."""
    group, top = group.astype(np.float32), np.float32(2**grid.bits - 1)
    if grid.symmetric:
        return 2 * abs(group).max(1) / top, np.full(len(group), 2 ** (grid.bits - 1))
    low, high = np.minimum(group.min(1), 0), np.maximum(group.max(1), 0)
    scale = (high - low) / top
    return scale, np.round(-low / scale)


def order_of(diagonal: np.ndarray, order: str, size: int) -> list[int]:
    """Return the columns as a sweep visits them."""
    inputs = range(len(diagonal))
    if order == "natural":
        return list(inputs)
    if order == "activation":
        return sorted(inputs, key=lambda column: -diagonal[column])
    largest = [diagonal[column // size * size :][:size].max() for column in inputs]
    return sorted(inputs, key=lambda column: (-largest[column], column // size, -diagonal[column]))


def textbook(weight: torch.Tensor, hessian: torch.Tensor, knobs: GPTQ) -> np.ndarray:
    """Quantize by explicit updates of the inverse Hessian (OBQ; GPTQ, equations 2 and 3)."""
    w, h, size = weight.double().numpy().copy(), hessian.numpy(), knobs.grid.group_size or weight.shape[1]
    order = order_of(h.diagonal(), knobs.order, size)
    inverse = np.linalg.inv(h + knobs.damping * h.diagonal().mean() * np.eye(len(h)))
    original, result = w.copy(), np.empty_like(w)
    for step, column in enumerate(order):
        if knobs.static_groups:
            scale, zero = grid_of(original[:, column // size * size :][:, :size], knobs.grid)
        else:
            if step % knobs.block_size == 0:
                opened = w.copy()
            if step % size == 0:
                seen = opened if knobs.scales == "block" else w
                scale, zero = grid_of(seen[:, order[step : step + size]], knobs.grid)
        code = np.clip(np.round(w[:, column].astype(np.float32) / scale) + zero, 0, 2**knobs.grid.bits - 1)
        result[:, column] = scale.astype(np.float64) * (code - zero)
        w -= np.outer((w[:, column] - result[:, column]) / inverse[column, column], inverse[column])
        inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return result


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("static_groups", [True, False])
@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
@pytest.mark.parametrize("group_size", [4, 8, None])
@pytest.mark.parametrize("scales", ["current", "block"])
@pytest.mark.parametrize("block_size", [6, 8])
def test_it_equals_the_textbook(
    layer: Layer, symmetric: bool, static_groups: bool, order: str, group_size: int | None, scales: str, block_size: int
) -> None:
    weight, hessian = layer(6, 16, 0)
    choices = {"order": order, "static_groups": static_groups, "scales": scales, "block_size": block_size}
    knobs = recipe(3, group_size, symmetric, **choices)
    found = gptq(weight, hessian, knobs).layer.weight()
    np.testing.assert_allclose(found.numpy(), textbook(weight, hessian, knobs), rtol=1e-6, atol=1e-7)


def test_no_choice_of_codes_beats_exhaustive_search_and_gptq_comes_close(layer: Layer) -> None:
    losses = []
    for seed in range(12):
        weight, hessian = layer(1, 4, seed)
        knobs = recipe(2, 4, static_groups=True, damping=1e-6)
        result = gptq(weight, hessian, knobs)
        levels = result.layer.scales[0, 0] * (torch.arange(4) - 2.0)
        candidates = torch.tensor(list(product(levels.tolist(), repeat=4)), dtype=torch.float64) - weight.double()
        best = ((candidates @ hessian) * candidates).sum(1).min().item()
        losses.append((best, result.entry.proxy_loss, result.entry.rtn_proxy_loss))
    best, ours, nearest = (np.array(column) for column in zip(*losses, strict=True))
    assert (ours >= best * (1 - 1e-6)).all()
    assert best.sum() <= ours.sum() < nearest.sum()
    assert ours.sum() < 1.5 * best.sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 3), st.integers(2, 3))
def test_inputs_that_do_not_correlate_make_it_optimal(seed: int, bits: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, inputs, generator=generator)
    hessian = torch.diag(torch.exp(torch.randn(inputs, generator=generator, dtype=torch.float64)))
    result = gptq(weight, hessian, recipe(bits, None))
    levels = result.layer.scales[0, 0] * (torch.arange(2.0**bits) - 2 ** (bits - 1))
    candidates = torch.tensor(list(product(levels.tolist(), repeat=inputs)), dtype=torch.float64) - weight.double()
    losses = ((candidates @ hessian) * candidates).sum(1)
    # The largest weight is halfway between two levels, up to 3.5 steps from 0. Which one is nearer is up to float32,
    # whose rounding moves it by 2**-23 of its size, and so its squared error by up to 4 * 3.5 * 2**-23 of that.
    tied = losses[losses <= losses.min() * (1 + 4 * 3.5 * 2**-23)]
    assert any(result.entry.proxy_loss == pytest.approx(float(loss)) for loss in tied)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), ORDERS)
def test_where_no_code_is_clipped_the_loss_is_that_of_babais_nearest_plane_at_most(seed: int, order: str) -> None:
    """At most half a step in each direction of the Cholesky basis (Chen et al. 2025, arXiv 2507.18553)."""
    weight, hessian = correlated(4, 12, seed)
    result = gptq(weight, hessian, recipe(8, None, False, order=order, damping=1e-9))
    layer = result.layer
    inner = ((layer.codes > 0) & (layer.codes < 255)).all(1)
    visited = torch.tensor(order_of(hessian.diagonal().numpy(), order, 12))
    pivots = 1 / torch.linalg.cholesky(torch.linalg.inv(hessian[visited][:, visited]), upper=True).diagonal() ** 2
    error = weight.double() - layer.weight().double()
    losses = ((error @ hessian) * error).sum(1)
    bounds = layer.scales[:, 0].double() ** 2 / 4 * pivots.sum()
    assert bool((losses <= bounds * (1 + 1e-3))[inner].all())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), ORDERS, st.booleans(), st.booleans(), st.sampled_from([None, ScaleSearch()]))
def test_outputs_may_come_in_any_order(
    seed: int, order: str, symmetric: bool, static: bool, search: ScaleSearch | None
) -> None:
    weight, hessian = correlated(6, 16, seed)
    knobs = recipe(3, 8, symmetric, search, order=order, static_groups=static)
    rows = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    permuted = gptq(weight[rows], hessian, knobs).layer
    assert torch.equal(permuted.weight(), gptq(weight, hessian, knobs).layer.weight()[rows])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 5),
    st.sampled_from([4, 8, None]),
    st.booleans(),
    st.booleans(),
    ORDERS,
    st.sampled_from([None, ScaleSearch(steps=20)]),
    st.integers(0, 2**16),
)
def test_every_weight_is_on_its_grid(
    bits: int,
    group: int | None,
    symmetric: bool,
    static: bool,
    order: str,
    search: ScaleSearch | None,
    seed: int,
) -> None:
    weight, hessian = correlated(4, 16, seed)
    knobs = recipe(bits, group, symmetric, search, order=order, static_groups=static)
    layer = gptq(weight, hessian, knobs).layer
    assert int(layer.codes.max()) <= 2**bits - 1
    index = layer.group_index.long()
    steps = layer.weight() / layer.scales[:, index]
    assert torch.equal(steps.round().to(torch.int16), layer.codes.to(torch.int16) - layer.zeros[:, index])
    assert torch.equal(torch.bincount(index), torch.full((16 // (group or 16),), group or 16))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
def test_it_beats_rounding_to_nearest_on_correlated_inputs(layer: Layer, bits: int, order: str) -> None:
    entries = [gptq(*layer(16, 32, seed), recipe(bits, 16, order=order)).entry for seed in range(8)]
    ratios = np.array([entry.proxy_loss / entry.rtn_proxy_loss for entry in entries])
    # At 2 bits a single layer may lose, where errors push later weights off the grid.
    assert bits == 2 or ratios.max() < 1
    assert ratios.mean() < 0.85


@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
@pytest.mark.parametrize("static_groups", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_uncorrelated_inputs_of_equal_size_give_rounding_to_nearest(
    order: str, static_groups: bool, symmetric: bool
) -> None:
    weight, knobs = torch.randn(6, 16), recipe(3, 4, symmetric, order=order, static_groups=static_groups)
    layer = gptq(weight, 3 * torch.eye(16, dtype=torch.float64), knobs).layer
    nearest = round_to_nearest(weight, knobs.grid)
    for part in ("codes", "scales", "zeros", "group_index"):
        assert torch.equal(getattr(layer, part), getattr(nearest, part))


@pytest.mark.parametrize("search", [None, ScaleSearch()])
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
def test_a_weight_on_its_grid_stays_as_it_is(
    layer: Layer, order: str, static: bool, search: ScaleSearch | None
) -> None:
    """Quantizing again changes nothing where a group's ends are among its weights, so that its grid is found again."""
    weight, hessian = layer(6, 16, 1)
    knobs = recipe(3, 8, symmetric=False, search=search, order=order, static_groups=static)
    # In activation order, groups found on the way are of inputs that follow each other in that order.
    grouped = (
        order_of(hessian.diagonal().numpy(), order, 8) if order == "activation" and not static else list(range(16))
    )
    on_grid = torch.empty_like(weight)
    on_grid[:, grouped] = round_to_nearest(weight[:, grouped], knobs.grid).weight()
    result = gptq(on_grid, hessian, knobs)
    torch.testing.assert_close(result.layer.weight(), on_grid)
    assert result.entry.proxy_loss == pytest.approx(0, abs=1e-9)


def test_the_order_in_which_inputs_are_listed_does_not_matter(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 2)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    plain = gptq(weight, hessian, recipe()).layer.weight()
    permuted = gptq(weight[:, order], hessian[order][:, order], recipe()).layer.weight()
    assert torch.equal(permuted, plain[:, order])


def test_outputs_do_not_interact(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 3)
    whole = gptq(weight, hessian, recipe()).layer.weight()
    assert torch.equal(gptq(weight[2:4], hessian, recipe()).layer.weight(), whole[2:4])


@pytest.mark.parametrize("block_size", [1, 3, 4, 8, 12, 16, 128])
@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
@pytest.mark.parametrize("static_groups", [True, False])
def test_the_block_size_changes_nothing(layer: Layer, block_size: int, order: str, static_groups: bool) -> None:
    weight, hessian = layer(6, 24, 4)
    results = [
        gptq(weight, hessian, recipe(3, 4, order=order, static_groups=static_groups, block_size=size)).layer
        for size in (24, block_size)
    ]
    assert torch.equal(results[0].codes, results[1].codes)
    torch.testing.assert_close(results[0].scales, results[1].scales)


def test_a_group_is_scaled_by_its_weights_after_the_errors_of_earlier_groups(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 5)
    static = gptq(weight, hessian, recipe(order="natural", static_groups=True)).layer
    dynamic = gptq(weight, hessian, recipe(order="natural")).layer
    assert torch.equal(static.scales[:, 0], dynamic.scales[:, 0])
    assert not torch.equal(static.scales[:, 1], dynamic.scales[:, 1])
    # Errors flow forward only: what comes in later groups cannot move the first.
    longer = torch.cat([weight[:, :8], torch.randn(6, 8)], dim=1)
    assert torch.equal(gptq(longer, hessian, recipe(order="natural")).layer.codes[:, :8], dynamic.codes[:, :8])


def test_groups_follow_the_activation_order_unless_they_are_static(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 6)
    order = torch.argsort(hessian.diagonal(), descending=True)
    dynamic, static = (gptq(weight, hessian, recipe(static_groups=static)).layer for static in (False, True))
    assert dynamic.group_index[order].tolist() == [0] * 8 + [1] * 8
    assert static.group_index.tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize("static_groups", [True, False])
def test_group_aware_order_keeps_neighbours_together(layer: Layer, static_groups: bool) -> None:
    weight, hessian = layer(6, 24, 6)
    found = gptq(weight, hessian, recipe(order="group-aware", static_groups=static_groups)).layer
    assert found.neighbouring
    natural, activation = (
        gptq(weight, hessian, recipe(order=order, static_groups=static_groups)).layer
        for order in ("natural", "activation")
    )
    assert not torch.equal(found.codes, natural.codes)
    assert not torch.equal(found.codes, activation.codes)


def test_with_one_group_a_row_group_aware_order_is_activation_order(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 6)
    found, expected = (
        gptq(weight, hessian, recipe(3, None, order=order)).layer for order in ("group-aware", "activation")
    )
    assert torch.equal(found.codes, expected.codes)


def test_a_searched_grid_lowers_the_proxy_loss_where_outliers_stretch_groups(layer: Layer) -> None:
    ratios = []
    for seed in range(8):
        weight, hessian = layer(16, 32, seed)
        weight[:, ::16] *= 4
        plain, searched = (
            gptq(weight, hessian, recipe(3, 16, search=search)).entry for search in (None, ScaleSearch())
        )
        ratios.append(searched.proxy_loss / plain.proxy_loss)
    assert np.mean(ratios) < 0.95


def test_bit_widths_run_together_as_they_run_alone(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 7)
    other = torch.randn(10, 16)
    tasks = [(weight, recipe(3)), (other, recipe(4)), (weight, recipe(4)), (weight, recipe(3, 4)), (weight, recipe(2))]
    tasks += [(weight, recipe(bits, search=ScaleSearch(), order="group-aware")) for bits in (3, 4)]
    for (own, knobs), together in zip(tasks, gptq_together(tasks, hessian), strict=True):
        alone = gptq(own, hessian, knobs)
        assert torch.equal(together.layer.weight(), alone.layer.weight())
        assert together.entry == alone.entry


def test_dead_inputs_get_zero_weights_and_are_counted(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 8)
    hessian[[3, 9]] = 0
    hessian[:, [3, 9]] = 0
    result = gptq(weight, hessian, recipe())
    assert torch.equal(result.layer.weight()[:, [3, 9]], torch.zeros(6, 2))
    assert result.entry.dead_columns == 2
    alive = [column for column in range(16) if column not in (3, 9)]
    assert bool((result.layer.weight()[:, alive] != 0).any())


@pytest.mark.parametrize(
    "hessian",
    [torch.full((16, 16), torch.nan), torch.zeros(16, 16), -torch.eye(16)],
    ids=["not finite", "no input", "not positive definite"],
)
def test_a_fallback_is_rounding_to_nearest_and_says_so(hessian: torch.Tensor) -> None:
    weight = torch.randn(6, 16)
    result = gptq(weight, hessian.double(), recipe())
    assert torch.equal(result.layer.codes, round_to_nearest(weight, recipe().grid).codes)
    assert (result.entry.requested, result.entry.method, result.entry.order) == ("gptq", "rtn", None)
    assert result.entry.fell_back
    assert result.entry.reason


def test_the_ladder_is_in_the_entry(layer: Layer) -> None:
    weight, hessian = layer(6, 16, 9)
    values, vectors = torch.linalg.eigh(hessian)
    values[0] = -0.02 * hessian.diagonal().mean()
    indefinite = vectors @ torch.diag(values) @ vectors.T
    entry = gptq(weight, indefinite, recipe(order="natural")).entry
    assert entry.method == "gptq"
    assert entry.attempts > 1
    assert entry.damping == pytest.approx(0.01 + 0.0025 * (entry.attempts - 1))


def test_the_proxy_loss_is_twice_the_mean_squared_error_of_the_output() -> None:
    inputs, weight = torch.randn(50, 16, dtype=torch.float64), torch.randn(6, 16)
    hessian = 2 * inputs.T @ inputs / 50
    layer = round_to_nearest(weight, Grid(bits=3, group_size=8))
    error = weight.double() - layer.weight()
    outputs = inputs @ error.T
    assert output_loss(error, hessian) == pytest.approx(2 * float((outputs**2).sum(1).mean()))


def test_groups_that_do_not_fit_are_refused(layer: Layer) -> None:
    with pytest.raises(CoolbitsError, match="5 does not divide the 16 inputs"):
        gptq(*layer(6, 16, 0), recipe(3, 5))
