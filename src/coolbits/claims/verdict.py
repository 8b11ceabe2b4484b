"""From effects of single units to an interval and a verdict.

A claim measures its effect once a unit, a seed as a rule, as a number that is positive when the claim holds. The
interval is that of the mean over units, see `coolbits.resampling.interval_of_mean`: Student's t over units, and a
bootstrap over the documents that all of them are scored on. With one unit only documents are resampled, and the result
says so: it speaks of this run, not of its repetition.

Of image classifiers, fine-tunings and curvatures a table has one number a model, and nothing to resample: Student's t
is all. One unit has no interval then; neither have units that agree to the last digit, as accuracies on few images may.

What is counted or computed, bytes of states and the theorems' bounds, is exact and has no interval at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from coolbits.resampling import Floats, interval_of_mean

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
UNDECIDED = "not decided at this scale"
UNTESTED = "no rows in this study"
Form = Literal["direction", "equivalence", "instability", "open", "exact"]


@dataclass(frozen=True)
class Effect:
    """What a claim measured: for each unit the estimate and its resamples over documents, shape [1 + samples].

    Where there are no documents to resample, all units have the estimate alone, shape [1].

    `n` counts the comparisons behind it; `margin` is the largest difference that counts as none, of an instability the
    largest that a stable run may have, of an exact number the largest distance from what is claimed. Of the `runs` on
    trial `diverged` did, and have no part in the numbers; if all did, there are no units. Of the runs that they are
    compared with, at the best setting of those, `lost_peers` diverged. `caveat` is a sentence on what units are, where
    they are no seeds.

    Where runs are on no trial, `lost` of those that would be compared diverged, which decides nothing. `uneven` counts
    comparisons that are left out since they have no like in other units.
    """

    units: Mapping[str, Floats]
    n: int
    margin: float = 0.0
    diverged: int = 0
    runs: int = 0
    lost_peers: int = 0
    caveat: str = ""
    lost: int = 0
    uneven: int = 0


@dataclass(frozen=True)
class Judgement:
    """An effect with its interval, and what the rule makes of it.

    The effect is None if every run on trial diverged, the interval also if the units do not decide one, and of exact
    numbers.
    """

    effect: float | None
    low: float | None
    high: float | None
    verdict: str
    resampled: str


def judge(effect: Effect, form: Form, confidence: float) -> Judgement:
    """Apply the decision rule of `form` to an effect."""
    if not effect.units:
        lost = {"instability": SUPPORTED, "equivalence": CONTRADICTED}.get(form, UNDECIDED)
        return Judgement(None, None, None, lost, "nothing")
    units = np.stack(list(effect.units.values()))  # [units, 1 + samples]
    estimates = units[:, 0]
    if form == "exact":
        agrees = bool((np.abs(estimates) <= effect.margin).all())
        return Judgement(float(estimates.mean()), None, None, SUPPORTED if agrees else CONTRADICTED, "nothing")
    low, high = interval_of_mean(units, confidence)
    known = bool(np.isfinite([low, high]).all())
    verdict = _verdict(effect, form, *((low, high) if known else (-np.inf, np.inf)), estimates)
    resampled = "nothing"
    if units.shape[1] > 1:
        resampled = "documents" if len(units) > 1 else "documents only, one unit"
    return Judgement(float(estimates.mean()), low if known else None, high if known else None, verdict, resampled)


def rule(form: Form, confidence: float, margin: str = "", resampled: bool = True) -> str:
    """Return the decision rule in words; `resampled` is False where there are no documents to resample."""
    if form == "exact":
        near = f"lies within {margin} of zero" if margin else "is zero"
        return f"These numbers are exact, so there is no interval. Supported if each {near}, otherwise contradicted."
    if resampled:
        return (
            f"{_decision(form, confidence, margin)} The interval is that of Student's t over seeds, and of a bootstrap "
            "over documents: half-widths add as squares. With one seed it is over documents alone."
        )
    return (
        f"{_decision(form, confidence, margin)} The interval is Student's t over seeds: there is one number a "
        "model. With one seed, or seeds that agree to the last digit, there is none, and only divergence decides."
    )


def _decision(form: Form, confidence: float, margin: str) -> str:
    interval = f"the {100 * confidence:g} % interval"
    if form == "equivalence":
        return (
            f"Supported if {interval} lies within {margin} of zero, contradicted if it lies wholly outside or a run on "
            "trial diverged where the one it is compared with did not, otherwise not decided."
        )
    if form == "instability":
        return (
            f"Supported if every run on trial diverged, or {interval} of the others lies above {margin}; contradicted "
            f"if none diverged and it lies below {margin}; otherwise not decided."
        )
    if form == "open":
        return (
            f"No paper claims a direction. A difference is called observed if {interval} excludes zero and every unit "
            "(seed) agrees in sign."
        )
    return (
        f"Supported if {interval} of the effect is above zero and the effect is positive in every unit (seed); "
        "contradicted if both hold with the sign reversed; otherwise, or if a run at a variant's best setting "
        "diverged, not decided."
    )


def _verdict(effect: Effect, form: Form, low: float, high: float, estimates: Floats) -> str:
    """Return what the rule makes of an interval, which is infinite where there is none."""
    if form == "equivalence":
        return CONTRADICTED if effect.diverged else _equivalence(low, high, effect.margin)
    if form == "instability":
        stable = not effect.diverged and high < effect.margin
        return SUPPORTED if low > effect.margin else CONTRADICTED if stable else UNDECIDED
    if form == "direction" and (effect.diverged or effect.lost_peers):
        return UNDECIDED
    up, down = low > 0 and bool((estimates > 0).all()), high < 0 and bool((estimates < 0).all())
    names = {"direction": (SUPPORTED, CONTRADICTED, UNDECIDED), "open": ("higher", "lower", "no difference seen")}
    verdict = names[form][0 if up else 1 if down else 2]
    return f"observed: {verdict}" if form == "open" else verdict


def _equivalence(low: float, high: float, margin: float) -> str:
    if -margin < low and high < margin:
        return SUPPORTED
    return CONTRADICTED if low > margin or high < -margin else UNDECIDED
