"""Bootstrap intervals: against scipy, against what they promise (coverage), and at their edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coolbits import statistics
from coolbits.statistics import (
    Interval,
    difference_interval,
    drop_interval,
    mean_interval,
    paired_interval,
    paired_mean_interval,
    ratio_interval,
)


def documents(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nats of a base and a quantized model, and tokens; documents differ far more than the two models do."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(50, 500, count)
    difficulty = generator.normal(3.0, 0.5, count)
    damage = generator.normal(0.15, 0.1, count)
    return tokens * difficulty, tokens * (difficulty + damage), tokens


def test_errors_and_drops_by_hand():
    base, quantized, tokens = np.array([30.0, 10.0]), np.array([33.0, 11.0]), np.array([10, 10])
    assert ratio_interval(base, quantized, tokens, 10, 0.9, 0).estimate == pytest.approx(0.1)
    assert difference_interval(base, quantized, tokens, 10, 0.9, 0).estimate == pytest.approx(0.2)
    assert drop_interval([1, 1, 1, 0], [1, 0, 1, 0], 10, 0.9, 0).estimate == pytest.approx(0.25 / 0.25)
    assert mean_interval([1, 2, 6], 10, 0.9, 0).estimate == pytest.approx(3)
    assert paired_mean_interval([1, 2], [2, 5], 10, 0.9, 0).estimate == pytest.approx(2)


@pytest.mark.parametrize(
    ("ours", "statistic"),
    [
        (ratio_interval, lambda base, quantized, tokens, axis: quantized.sum(axis) / base.sum(axis) - 1),
        (
            difference_interval,
            lambda base, quantized, tokens, axis: (quantized - base).sum(axis) / tokens.sum(axis),
        ),
    ],
)
def test_equals_scipy_percentile_bootstrap(ours, statistic):
    data = documents(80, seed=1)
    expected = stats.bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=8000,
        confidence_level=0.9,
        rng=np.random.default_rng(2),
    ).confidence_interval
    found = ours(*data, samples=8000, confidence=0.9, seed=3)
    noise = 0.05 * (expected.high - expected.low)
    assert found.low == pytest.approx(expected.low, abs=noise)
    assert found.high == pytest.approx(expected.high, abs=noise)


def test_covers_the_truth_as_often_as_promised():
    draws = [difference_interval(*documents(60, seed), 400, 0.9, seed) for seed in range(300)]
    covered = np.mean([found.low <= 0.15 <= found.high for found in draws])
    assert 0.83 <= covered <= 0.96  # 300 trials at 0.9: four standard errors down, and the bootstrap is a little narrow


def test_pairing_cancels_what_documents_share():
    base, _, tokens = documents(40, seed=4)
    assert ratio_interval(base, 1.05 * base, tokens, 200, 0.95, 0) == pytest.approx((0.05, 0.05, 0.05))


def test_the_seed_decides_and_the_block_size_does_not(monkeypatch):
    data = documents(30, seed=5)
    first = ratio_interval(*data, 500, 0.95, 7)
    assert ratio_interval(*data, 500, 0.95, 7) == first
    assert ratio_interval(*data, 500, 0.95, 8) != first
    monkeypatch.setattr(statistics, "_PICKS_AT_ONCE", 77)
    assert ratio_interval(*data, 500, 0.95, 7) == first


@pytest.mark.parametrize("values", [[], [2.5]])
def test_one_unit_or_none_has_no_interval(values):
    found = mean_interval(values, 100, 0.95, 0)
    assert np.isnan([found.low, found.high]).all()
    assert found.estimate == 2.5 if values else np.isnan(found.estimate)


def test_a_base_model_without_errors_has_no_drop():
    assert np.isnan(drop_interval([1, 1, 1], [1, 0, 1], 100, 0.95, 0)).all()


def test_resamples_in_which_the_base_makes_no_error_are_left_out():
    found = drop_interval([1, 1, 1, 0], [1, 1, 0, 0], 500, 0.95, 0)
    assert np.isfinite(found).all()


def test_a_broken_model_has_no_interval():
    base, _, tokens = documents(10, seed=6)
    assert np.isnan(ratio_interval(base, np.full(10, np.nan), tokens, 100, 0.95, 0)).all()
    assert np.isnan(ratio_interval(base, np.full(10, np.inf), tokens, 100, 0.95, 0)).all()


def test_columns_must_pair_up():
    with pytest.raises(ValueError, match="shape"):
        paired_interval([[1.0, 2.0], [1.0]], lambda means: means[..., 0], 10, 0.95, 0)


@given(
    values=st.lists(st.floats(-100, 100), min_size=2, max_size=30),
    scale=st.floats(0.1, 10),
    shift=st.floats(-10, 10),
)
@settings(deadline=None, max_examples=50)
def test_an_interval_moves_with_its_data(values, scale, shift):
    found = mean_interval(values, 50, 0.9, 0)
    moved = mean_interval(scale * np.array(values) + shift, 50, 0.9, 0)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert moved == pytest.approx(Interval(*(scale * end + shift for end in found)), abs=1e-6)
