"""Muon's update under rounding: the polar factor, the iteration, and the bounds on both."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.analysis.polar import Polar, arithmetic_error, iteration_change, polar_change, spectrum, steepest
from coolbits.optim.newton_schulz import COEFFICIENTS

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7))


def matrices(shape: tuple[int, int], seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return one, one + noise * other


def test_the_polar_factor_is_the_nearest_matrix_with_orthonormal_rows() -> None:
    matrix, _ = matrices((4, 7), 0, 0)
    factor = Polar.of(matrix).factor
    torch.testing.assert_close(factor @ factor.T, torch.eye(4, dtype=torch.float64))
    root = torch.linalg.eigh(matrix @ matrix.T)
    inverse = root.eigenvectors @ torch.diag(root.eigenvalues.rsqrt()) @ root.eigenvectors.T
    torch.testing.assert_close(factor, inverse @ matrix)


@settings(max_examples=150, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6), noise=st.floats(1e-6, 10))
def test_no_pair_of_matrices_breaks_the_polar_factors_bound(shape: tuple[int, int], seed: int, noise: float) -> None:
    change = polar_change(*map(Polar.of, matrices(shape, seed, noise)))
    assert change.bound is not None and change.value <= change.bound * (1 + 1e-9)


@settings(max_examples=150, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6), noise=st.floats(1e-6, 10), steps=st.integers(1, 6))
def test_no_pair_of_matrices_breaks_the_iterations_bound(
    shape: tuple[int, int], seed: int, noise: float, steps: int
) -> None:
    change = iteration_change(*matrices(shape, seed, noise), steps)
    assert change.bound is not None and change.value <= change.bound * (1 + 1e-4)


def test_the_iterations_bound_needs_no_smallest_singular_value_and_is_nearly_reached() -> None:
    flat = torch.zeros(8, 8, dtype=torch.float64)
    flat[0, 0] = 1
    tilted = flat.clone()
    tilted[1, 1] = 1e-6
    assert math.isinf(polar_change(Polar.of(flat), Polar.of(flat)).bound or 0)
    change = iteration_change(flat, tilted, 5)
    assert change.value == pytest.approx(change.bound, rel=1e-2)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_the_iteration_is_steepest_at_zero(steps: int) -> None:
    assert steepest(steps) == pytest.approx(COEFFICIENTS[0] ** steps)


def test_the_spectrum_of_a_known_matrix() -> None:
    found = {item.quantity: item.value for item in spectrum(Polar.of(torch.diag(torch.tensor([4.0, 2.0, 1.0]))))}
    assert found == pytest.approx({"sigma_max": 4, "sigma_min": 1, "condition": 4, "stable_rank": 21 / 16})


def test_bfloat16_alone_moves_the_iteration_by_about_a_percent() -> None:
    matrix, _ = matrices((64, 128), 0, 0)
    assert 0.002 < arithmetic_error(matrix, 5).value < 0.05
