"""The bootstrap in matrices: against one resample after the other, scipy, and what intervals promise (coverage)."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coolbits.resampling import interval_of_mean, percentiles, resampled_means

VALUES = np.random.default_rng(0).normal(3, 1, (4, 50))


def documents(count: int, seed: int) -> np.ndarray:
    """Return tokens, nats of a base and of a quantized model: documents differ far more than the two do. [3, count]"""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(50, 500, count)
    difficulty = generator.normal(3.0, 0.5, count)
    damage = generator.normal(0.15, 0.1, count)
    return np.stack([tokens, tokens * difficulty, tokens * (difficulty + damage)])


def test_intervals_are_those_of_the_bootstrap_of_one_model(bootstrap: Callable[..., tuple[float, ...]]) -> None:
    low, high = percentiles(resampled_means(VALUES, 300, seed=5), 0.9)
    for row, values in enumerate(VALUES):
        expected = bootstrap(np.mean, values, samples=300, confidence=0.9, seed=5)
        assert (values.mean(), low[row], high[row]) == pytest.approx(expected)


def test_intervals_are_those_of_scipy() -> None:
    data = documents(80, seed=1)
    expected = stats.bootstrap(
        tuple(data),
        lambda tokens, base, quantized, axis: (quantized - base).sum(axis) / tokens.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=8000,
        confidence_level=0.9,
        rng=np.random.default_rng(2),
    ).confidence_interval
    tokens, base, quantized = resampled_means(data, 8000, seed=3)
    noise = 0.05 * (expected.high - expected.low)
    assert percentiles((quantized - base) / tokens, 0.9) == pytest.approx(expected, abs=noise)


def test_intervals_over_documents_hold_the_truth_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(300):
        tokens, base, quantized = resampled_means(documents(60, seed), 400, seed)
        low, high = percentiles((quantized - base) / tokens, 0.9)
        covered += low <= 0.15 <= high
    assert 0.83 <= covered / 300 <= 0.96  # four standard errors down, and the bootstrap is a little narrow


def test_many_units_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resampled_means(VALUES, 100, seed=1)
    monkeypatch.setattr("coolbits.resampling._WEIGHTS_AT_ONCE", 170)
    np.testing.assert_allclose(resampled_means(VALUES, 100, seed=1), whole)


@settings(max_examples=25, deadline=None)
@given(st.floats(-10, 10), st.floats(-5, 5), st.integers(0, 99))
def test_a_linear_change_of_the_values_is_one_of_the_means(shift: float, scale: float, seed: int) -> None:
    changed = resampled_means(shift + scale * VALUES, 20, seed)
    np.testing.assert_allclose(changed, shift + scale * resampled_means(VALUES, 20, seed), atol=1e-9)


def test_draws_that_are_not_finite_are_left_out() -> None:
    drawn = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.inf]])
    low, high = percentiles(drawn, 1.0)
    assert (low[0], high[0]) == (1.0, 3.0)
    assert np.isnan([low[1], high[1]]).all()


def test_one_unit_says_nothing_of_spread() -> None:
    drawn = resampled_means(VALUES[:, :1], 10, seed=0)
    assert drawn.shape == (4, 10)
    assert np.isnan(drawn).all()
    assert np.isnan(interval_of_mean(np.concatenate([VALUES[:, :1], drawn], axis=1), 0.95)).all()


def with_documents(estimates: np.ndarray, noise: float, generator: np.random.Generator) -> np.ndarray:
    """Return units whose documents, the same for all, add noise to estimates and resamples: [units, 1 + samples]."""
    shared = generator.normal(0, noise, 500) if noise else np.zeros(500)
    return estimates[:, None] + generator.normal(0, noise) + np.concatenate([[0.0], shared])


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_intervals_of_few_seeds_hold_the_mean_as_often_as_they_say(seeds: int, noise: float) -> None:
    generator = np.random.default_rng(seeds)
    held = []
    for _ in range(2000):
        low, high = interval_of_mean(with_documents(generator.normal(0, 1, seeds), noise, generator), 0.95)
        held.append(low <= 0 <= high)
    assert 0.935 < np.mean(held) < (0.965 if noise == 0 else 1)


def test_quiet_documents_leave_students_t_and_seeds_that_agree_the_percentiles() -> None:
    quiet = np.repeat([[1.0], [1.5], [0.7]], 100, axis=1)
    assert interval_of_mean(quiet, 0.9) == pytest.approx(
        tuple(stats.ttest_1samp(quiet[:, 0], 0).confidence_interval(0.9))
    )
    drawn = np.random.default_rng(0).gamma(2, 1, 1000)
    agreeing = np.tile(np.concatenate([[2.0], drawn]), (3, 1))
    assert interval_of_mean(agreeing, 0.9) == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])))
