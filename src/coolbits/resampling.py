"""The bootstrap of `coolbits.statistics` for many models at once: a product of matrices in place of a loop.

All models are scored on the same units (held-out documents, task samples), so one resample serves them all, and
what two models share cancels in any contrast between them. The draws are those of `coolbits.statistics`: the same
seed and number of units give the same resamples.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_WEIGHTS_AT_ONCE = 1 << 22

Floats = NDArray[np.float64]


def resampled_means(values: Floats, samples: int, seed: int) -> Floats:
    """Return the mean of each row of `values` in every resample of the units.

    Args:
        values: [models, units]
        samples: resamples drawn
        seed: of the draws

    Returns: [models, samples]
    """
    return np.concatenate([values @ weights.T for weights in _weights(values.shape[1], samples, seed)], axis=1)


def mean_of_drawn(units: Floats, seed: int) -> Floats:
    """Return the mean of units drawn with replacement, in each resample of what they share.

    Drawing from k units understates their variance by (k - 1) / k: deviations between units are widened by
    sqrt(k / (k - 1)) (Davison & Hinkley 1997, section 2.3). One unit is itself.

    Args:
        units: [units, samples], of each unit its resamples
        seed: of the draws

    Returns: [samples]
    """
    count, samples = units.shape
    centre = units.mean(axis=0)
    if count == 1:
        return centre
    picks = np.random.default_rng(seed).integers(count, size=(count, samples))
    means = np.take_along_axis(units, picks, axis=0).mean(axis=0)
    return centre + np.sqrt(count / (count - 1)) * (means - centre)


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
