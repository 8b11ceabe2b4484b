"""The percentile bootstrap (Efron & Tibshirani 1993, section 13.3) of many models at once, and intervals over seeds.

All models are scored on the same units (held-out documents, task samples), so one resample serves them all, and
what two models share, the difficulty of a document, cancels in any contrast between them: its interval is far narrower
than two intervals apart. The same seed and number of units give the same resamples, whatever the values.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

_WEIGHTS_AT_ONCE = 1 << 22

Floats = NDArray[np.float64]


def resampled_means(values: Floats, samples: int, seed: int) -> Floats:
    """Return the mean of each row of `values` in every resample of the units; of one unit, which has no spread, NaN.

    Args:
        values: [models, units]
        samples: resamples drawn
        seed: of the draws

    Returns: [models, samples]
    """
    if values.shape[1] < 2:
        return np.full((len(values), samples), np.nan)
    return np.concatenate([values @ weights.T for weights in _weights(values.shape[1], samples, seed)], axis=1)


def by_unit(units: Iterable[Any], values: Floats) -> dict[str, Floats]:
    """Return the mean of `values`, shape [comparisons, 1 + samples], over the comparisons of each unit."""
    labels = np.array([str(unit) for unit in units])
    return {label: values[labels == label].mean(axis=0) for label in dict.fromkeys(labels)}


def interval_of_mean(units: Floats, confidence: float) -> tuple[float, float]:
    """Return the ends of the interval of the mean over units, NaN where the data do not decide one.

    Units, seeds as a rule, are few: their share is Student's t. (A bootstrap of two normal numbers holds their mean in
    61 % of cases where it says 95 %.) What all units share, documents, is resampled: its share are percentiles of the
    mean. The two errors are independent, and half-widths add as squares. One unit has the share of documents alone.
    Where nothing was resampled, one unit has no interval, and units that agree to the last digit have none: they do not
    tell how far the next one would lie.

    Args:
        units: [units, 1 + samples], of each unit its estimate, then its resamples
        confidence: of the interval
    """
    count, estimates, means = len(units), units[:, 0], units.mean(axis=0)
    if len(means) == 1 and (count < 2 or np.allclose(estimates, estimates[0], rtol=1e-9, atol=1e-9)):
        return np.nan, np.nan
    low, high = percentiles(means[1:], confidence) if len(means) > 1 else (means[0], means[0])
    spread = 0.0
    if count > 1:
        spread = student.ppf((1 + confidence) / 2, count - 1) * estimates.std(ddof=1) / np.sqrt(count)
    below, above = (np.hypot(np.maximum(share, 0), spread) for share in (means[0] - low, high - means[0]))
    return float(means[0] - below), float(means[0] + above)


def percentiles(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return the ends of the percentile interval along the last axis; draws that are not finite are left out."""
    levels = [(1 - confidence) / 2, (1 + confidence) / 2]
    known = np.isfinite(drawn)
    if known.all():  # the plain quantile is far faster
        low, high = np.quantile(drawn, levels, axis=-1)
        return low, high
    ends = np.full((2, *drawn.shape[:-1]), np.nan)
    some = known.any(axis=-1)
    ends[:, some] = np.nanquantile(np.where(known, drawn, np.nan)[some], levels, axis=-1)
    return ends[0], ends[1]


def _weights(units: int, samples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each unit was drawn, as a share of the draws: blocks of shape [resamples, units]."""
    generator = np.random.default_rng(seed)
    rows = max(1, _WEIGHTS_AT_ONCE // units)
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        picks = generator.integers(units, size=(count, units), dtype=np.uint32)
        cells = picks + (np.arange(count, dtype=np.int64) * units)[:, None]
        yield np.bincount(cells.ravel(), minlength=count * units).reshape(count, units) / units
