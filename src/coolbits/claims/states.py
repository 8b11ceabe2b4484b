"""Optimizers with low-bit states against their peers: full-precision loss, divergence, quantization error.

Losses are compared with each variant at its best setting (peak rate, weight decay, beta2) among those tried, chosen by
full-precision loss, in every model and horizon that has both. Quantization errors are compared at equal settings, the
best of the 32-bit form: the peak rate alone moves the error (paper A, Figure 6).

Fine-tunings are compared in the same way by their loss on answers, image classifiers by their accuracy, see
`coolbits.claims.trainings`.
"""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from coolbits.claims.contrasts import (
    along_runs,
    at_best,
    at_equal_loss,
    completed,
    even,
    paired,
    while_constant,
    with_equal_losses,
    with_lost,
    without_lost_twins,
)
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import Effect
from coolbits.resampling import Floats, by_unit
from coolbits.settings import TUNED, best_settings, by_seed

# Version 1 of paper B calls 8-bit Muon, 1 to 2 % worse on its small models, a gap; version 3 calls 0.002 nats, less
# than 0.1 %, parity. One percent lies between, and is what a few seeds of a small model can tell from none.
LOSS_MARGIN = 1.0  # percent of the loss
STALL_MARGIN = 5.0  # percent of the loss; far beyond what seeds do to a run that trains
# The paper's accuracies on ImageNet are not known here; the same two numbers, in percentage points, are ours.
ACCURACY_MARGIN = 1.0
ACCURACY_STALL_MARGIN = 5.0

Variant = tuple[str, str]  # optimizer and states
Pair = tuple[pd.DataFrame, pd.DataFrame]


def loss_increase(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Final loss of `tested` relative to `reference`, less 1, in percent; on trial are the runs at its best setting.

    A run at a setting and seed at which `reference` diverged, too, is not held against `tested`.
    """
    return _contrast_losses(evidence, reference, tested, _percent, LOSS_MARGIN)


def lower_loss(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Final loss of `reference` less that of `tested`, in nats per token."""
    return _contrast_losses(evidence, reference, tested, lambda first, second: first - second)


def higher_loss(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Final loss of `tested` less that of `reference`, in nats per token."""
    return _contrast_losses(evidence, reference, tested, _rise)


def instability(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Final loss of `tested` relative to `reference`, less 1, in percent; on trial are its runs at every setting.

    A run at a setting and seed at which `reference` diverged, too, is not held against `tested`.
    """
    return _contrast_losses(evidence, reference, tested, _percent, STALL_MARGIN, every_setting=True)


def accuracy_lost(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Final accuracy of `reference` less that of `tested`, in points; on trial are the runs at its best setting.

    Their scores are shares of errors, in percent (`coolbits.claims.trainings`).
    """
    return _contrast_losses(evidence, reference, tested, _rise, ACCURACY_MARGIN)


def accuracy_instability(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Final accuracy of `reference` less that of `tested`, in points; on trial are its runs as of `instability`."""
    return _contrast_losses(evidence, reference, tested, _rise, ACCURACY_STALL_MARGIN, every_setting=True)


def error_increase(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Final error of `tested` less that of `reference`."""
    return _contrast_errors(evidence, reference, tested, lambda first, second: paired(evidence, first, second, "error"))


def error_increase_at_equal_loss_after_cooldown(
    reference: Variant, tested: Variant, evidence: Evidence
) -> Effect | None:
    """Final error of `tested` less that of `reference`, of pairs whose losses are within the margin of each other."""

    def difference(first: pd.DataFrame, second: pd.DataFrame) -> Effect | None:
        return paired(evidence, *with_equal_losses(evidence, first, second, LOSS_MARGIN), "error")

    return _contrast_errors(evidence, reference, tested, difference)


def error_increase_at_equal_loss_at_constant_rate(
    reference: Variant, tested: Variant, evidence: Evidence
) -> Effect | None:
    """Error of `tested` less that of `reference` at equal full-precision loss along runs, before the decay."""

    def difference(first: pd.DataFrame, second: pd.DataFrame) -> Floats | None:
        return at_equal_loss(evidence, while_constant(first), while_constant(second))

    return _contrast_errors(evidence, reference, tested, lambda one, two: along_runs(evidence, one, two, difference))


def error_increase_at_constant_rate(reference: Variant, tested: Variant, evidence: Evidence) -> Effect | None:
    """Error of `tested` less that of `reference` after equally many tokens, mean over checkpoints before the decay."""

    def difference(first: pd.DataFrame, second: pd.DataFrame) -> Floats | None:
        one, other = (while_constant(run).set_index("tokens", drop=False) for run in (first, second))
        common = one.index.intersection(other.index)
        values = evidence.of(other.loc[common], "error") - evidence.of(one.loc[common], "error")
        return values.mean(axis=0) if len(common) else None

    return _contrast_errors(evidence, reference, tested, lambda one, two: along_runs(evidence, one, two, difference))


def _contrast_losses(
    evidence: Evidence,
    reference: Variant,
    tested: Variant,
    contrast: Callable[[Floats, Floats], Floats],
    margin: float = 0.0,
    every_setting: bool = False,
) -> Effect | None:
    """Return `contrast` of the final losses of both variants, paired by seed, and how many runs on trial diverged.

    What two entries of the study share is measured and counted once.
    """
    pairs, tried, peers = [], [], []
    for first, second in _contests(evidence.outcomes, evidence.alike, reference, tested):
        best, peer = at_best(second), at_best(first)
        pairs.append(by_seed(completed(peer), completed(best)))
        tried.append(without_lost_twins(first, second if every_setting else best))
        peers.append(peer)
    if not tried:
        return None
    every, beside = _each_pair_once(*(pd.concat(rows) for rows in zip(*pairs, strict=True)))
    effect = None
    if len(every):
        one, other = even(evidence, every, beside)
        units, caveat = evidence.units(one)
        values = contrast(evidence.of(one, "full"), evidence.of(other, "full"))
        effect = Effect(by_unit(units, values), len(one), margin, caveat=caveat, uneven=len(every) - len(one))
    return with_lost(effect, pd.concat(tried), pd.concat(peers))


def _each_pair_once(one: pd.DataFrame, other: pd.DataFrame) -> Pair:
    twins = pd.DataFrame({"one": one.trajectory.to_numpy(), "other": other.trajectory.to_numpy()})
    first = ~twins.duplicated().to_numpy()
    return one[first], other[first]


def _contests(finished: pd.DataFrame, alike: Sequence[str], reference: Variant, tested: Variant) -> Iterator[Pair]:
    """Yield the rows of both variants in each group, equal in `alike`, in which `reference` came to an end at all."""
    for _, group in finished.groupby(list(alike), dropna=False):
        first, second = (
            group[(group.optimizer == optimizer) & (group.states == states)]
            for optimizer, states in (reference, tested)
        )
        if len(completed(first)) and len(second):
            yield first, second


def _contrast_errors(
    evidence: Evidence,
    reference: Variant,
    tested: Variant,
    contrast: Callable[[pd.DataFrame, pd.DataFrame], Effect | None],
) -> Effect | None:
    """Return `contrast` of ends of both variants at the best setting of `reference`, paired by seed.

    It knows how many runs at that setting diverged; if all of `tested` did, it has no units.
    """
    none = evidence.outcomes.iloc[:0]
    pairs, tried, peers = [(none, none)], [none], [none]
    for contest in _contests(evidence.outcomes, evidence.alike, reference, tested):
        best = best_settings(contest[0])[list(TUNED)]
        first, second = (rows.merge(best, on=list(TUNED)) for rows in contest)
        pairs.append(by_seed(completed(first), completed(second)))
        tried.append(without_lost_twins(first, second))
        peers.append(first)
    effect = contrast(*(pd.concat(rows) for rows in zip(*pairs, strict=True)))
    return with_lost(effect, pd.concat(tried), pd.concat(peers))


def _percent(first: Floats, second: Floats) -> Floats:
    return 100 * (second / first - 1)


def _rise(first: Floats, second: Floats) -> Floats:
    return second - first
