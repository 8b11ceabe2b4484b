"""The rule of divergence against its words, step by step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.loops.divergence import LossHistory, diverged_since
from coolbits.study.recipes.training import Divergence

losses_near_one = st.lists(st.floats(0.01, 10), min_size=1, max_size=30)


def first_divergence(rule: Divergence, losses: list[float]) -> tuple[int, int] | None:
    """Return the numbers, from 1, of the update at which the rule first fires, and of that since which it says so."""
    history = LossHistory()
    for number, loss in enumerate(losses, start=1):
        history = history.after(loss, rule)
        if (since := diverged_since(rule, history, grad_norm=1.0, step=number)) is not None:
            return number, since
    return None


@given(losses_near_one, st.integers(1, 5), st.integers(1, 12), st.floats(1.1, 3))
def test_it_fires_when_the_mean_of_a_full_window_exceeds_its_limit(
    losses: list[float], window: int, relapse: int, factor: float
) -> None:
    rule = Divergence(loss_factor=factor, window_steps=window, relapse_steps=relapse)

    def mean(end: int, steps: int) -> float:
        return math.fsum(losses[end - steps : end]) / steps

    expected = None
    for end in range(1, len(losses) + 1):
        lowest = min((mean(earlier, relapse) for earlier in range(relapse, end + 1)), default=math.inf)
        for steps, level in ((window, losses[0]), (relapse, max(lowest, losses[0] / 10))):
            if expected is None and steps <= end and mean(end, steps) > factor * level:
                above = (number for number in range(end - steps + 1, end + 1) if losses[number - 1] > factor * level)
                expected = end, next(above)
    assert first_divergence(rule, losses) == expected


def test_a_run_that_blows_up_late_has_diverged_though_its_loss_is_that_of_a_guess() -> None:
    """A vocabulary of 50,257 words: 10.8 nats at first, and half as much again would be 16."""
    losses = [10.8, *[3.3] * 500, *[7.5] * 200]
    fired, began = first_divergence(Divergence(), losses) or (None, None)
    assert began == 502
    assert fired == 501 + 40  # the fortieth of the high losses makes the mean of a hundred exceed 4.95
    assert first_divergence(Divergence(relapse_steps=1000), losses) is None


def test_a_spike_that_passes_is_none() -> None:
    assert first_divergence(Divergence(), [10.8, *[3.3] * 200, *[9.0] * 20, *[3.3] * 200]) is None


def test_a_loss_near_zero_may_double_but_not_be_lost() -> None:
    """A classifier of ten classes that is right: one more of its images that is not doubles the mean of its losses."""
    right = [2.3, *[0.5] * 100, *[0.02] * 200]
    assert first_divergence(Divergence(), [*right, *[0.04] * 200, *[0.3] * 200]) is None
    assert first_divergence(Divergence(), [*right, *[2.3] * 200]) == (316, 302)


def test_it_says_since_when_not_only_when_it_is_sure() -> None:
    assert first_divergence(Divergence(), [6.2] * 10 + [30.0] * 40) == (20, 11)


def test_what_only_reaches_the_limit_is_not_above_it() -> None:
    rule = Divergence(loss_factor=2.0, window_steps=3)
    assert first_divergence(rule, [1.0, *[2.0] * 5]) is None
    assert first_divergence(rule, [1.0, *[2.0] * 5, 3.0]) == (7, 7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_needs_no_window(bad: float) -> None:
    assert first_divergence(Divergence(), [4.0, 3.9, bad, 3.8]) == (3, 3)
    assert first_divergence(Divergence(), [bad]) == (1, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_diverges_though_the_loss_is_fine(bad: float) -> None:
    history = LossHistory().after(4.0, Divergence())
    assert diverged_since(Divergence(), history, bad, 1) == 1
    assert diverged_since(Divergence(), history, 1.0, 1) is None


def test_nothing_has_diverged_before_the_first_update() -> None:
    assert diverged_since(Divergence(), LossHistory(), 0.0, 0) is None
