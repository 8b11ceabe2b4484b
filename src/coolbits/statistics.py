"""Bootstrap intervals for what tables and claims report: paired, percentile, vectorised, decided by a seed.

Every statistic here is a function of the means of a few columns over the same units (held-out documents, task
samples, seeds). Units are drawn with replacement, all columns of a unit together: what two models share (the
difficulty of a document) cancels, which makes the interval of a difference far narrower than two intervals apart.

Method: percentile bootstrap (Efron & Tibshirani 1993, section 13.3): the interval runs between the (1-c)/2 and
(1+c)/2 quantiles of the statistic over the resamples. One unit, or none, says nothing of spread: its interval is NaN.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_PICKS_AT_ONCE = 1 << 21

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]


class Interval(NamedTuple):
    """A statistic and the ends of its confidence interval; NaN where the data do not decide it."""

    estimate: float
    low: float
    high: float


def ratio_interval(
    base_nats: ArrayLike, quantized_nats: ArrayLike, tokens: ArrayLike, samples: int, confidence: float, seed: int
) -> Interval:
    """Return the relative quantization error CE(quantized) / CE(base) - 1, paired over documents.

    `base_nats`, `quantized_nats` and `tokens` are sums a document, shape [documents], in the same order; CE is
    nats per token, so long documents weigh more (paper A, section 3.1).
    """
    return paired_interval([base_nats, quantized_nats, tokens], _relative_error, samples, confidence, seed)


def difference_interval(
    base_nats: ArrayLike, quantized_nats: ArrayLike, tokens: ArrayLike, samples: int, confidence: float, seed: int
) -> Interval:
    """Return the absolute quantization error CE(quantized) - CE(base) in nats per token, paired over documents."""
    return paired_interval([base_nats, quantized_nats, tokens], _absolute_error, samples, confidence, seed)


def drop_interval(
    base_correct: ArrayLike, quantized_correct: ArrayLike, samples: int, confidence: float, seed: int
) -> Interval:
    """Return the relative accuracy drop (acc - acc_q) / (1 - acc), paired over a task's samples (paper A, section 3.2).

    Both arrays hold 0 or 1 a sample. A base model without an error has no drop: NaN; resamples in which it makes none
    are left out of the quantiles.
    """
    return paired_interval([base_correct, quantized_correct], _relative_drop, samples, confidence, seed)


def mean_interval(values: ArrayLike, samples: int, confidence: float, seed: int) -> Interval:
    """Return the mean of `values`, shape [units]."""
    return paired_interval([values], _first_mean, samples, confidence, seed)


def paired_mean_interval(first: ArrayLike, second: ArrayLike, samples: int, confidence: float, seed: int) -> Interval:
    """Return the mean of `second - first`, paired over units."""
    return paired_interval([first, second], _mean_difference, samples, confidence, seed)


def paired_interval(
    columns: list[ArrayLike], statistic: Statistic, samples: int, confidence: float, seed: int
) -> Interval:
    """Return the percentile bootstrap interval of `statistic` over units that keep their columns together.

    `statistic` maps means of the columns, shape [..., columns], to values, shape [...]. The same seed and number of
    units give the same resamples, whatever the values: intervals of several models are drawn alike.

    Raises:
        ValueError: if the columns differ in length.
    """
    units = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=-1)  # [units, columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = float(statistic(units.mean(axis=0))) if len(units) else float("nan")
        if len(units) < 2:
            return Interval(estimate, float("nan"), float("nan"))
        drawn = np.concatenate([statistic(means) for means in _resampled_means(units, samples, seed)])
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(estimate) or not len(drawn):
        return Interval(estimate if np.isfinite(estimate) else float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def _resampled_means(units: Floats, samples: int, seed: int) -> Iterator[Floats]:
    """Yield means of resamples, blocks of shape [resamples, columns]: memory stays bounded, the draws do not change."""
    generator = np.random.default_rng(seed)
    rows = max(1, _PICKS_AT_ONCE // len(units))
    for start in range(0, samples, rows):
        picks = generator.integers(len(units), size=(min(rows, samples - start), len(units)), dtype=np.uint32)
        yield units[picks].mean(axis=1)


def _relative_error(means: Floats) -> Floats:
    return _absolute_error(means) / (means[..., 0] / means[..., 2])


def _absolute_error(means: Floats) -> Floats:
    return (means[..., 1] - means[..., 0]) / means[..., 2]


def _relative_drop(means: Floats) -> Floats:
    return (means[..., 0] - means[..., 1]) / (1 - means[..., 0])


def _first_mean(means: Floats) -> Floats:
    return means[..., 0]


def _mean_difference(means: Floats) -> Floats:
    return means[..., 1] - means[..., 0]
