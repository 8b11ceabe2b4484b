"""The bootstrap in matrices: the same draws as `coolbits.statistics`, for all models at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.resampling import percentiles, resampled_means
from coolbits.statistics import mean_interval

VALUES = np.random.default_rng(0).normal(3, 1, (4, 50))


def test_intervals_are_those_of_the_bootstrap_of_one_model() -> None:
    low, high = percentiles(resampled_means(VALUES, 300, seed=5), 0.9)
    for row, values in enumerate(VALUES):
        expected = mean_interval(values, 300, 0.9, 5)
        assert (low[row], high[row]) == pytest.approx((expected.low, expected.high))


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
