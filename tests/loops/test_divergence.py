"""The rule of divergence against its words, step by step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.loops.divergence import LossHistory, has_diverged
from coolbits.study.recipes.training import Divergence

losses_near_one = st.lists(st.floats(0.1, 10), min_size=1, max_size=30)


def first_divergence(rule: Divergence, losses: list[float]) -> int | None:
    """Return the number, from 1, of the update at which the rule first fires."""
    history = LossHistory()
    for number, loss in enumerate(losses, start=1):
        history = history.after(loss, rule.window_steps)
        if has_diverged(rule, history, grad_norm=1.0):
            return number
    return None


@given(losses_near_one, st.integers(1, 5), st.floats(1.1, 3))
def test_it_fires_when_the_mean_of_a_full_window_exceeds_the_first_loss_times_the_factor(
    losses: list[float], window: int, factor: float
) -> None:
    means = {end: math.fsum(losses[end - window : end]) / window for end in range(window, len(losses) + 1)}
    expected = min((end for end, mean in means.items() if mean > factor * losses[0]), default=None)
    assert first_divergence(Divergence(loss_factor=factor, window_steps=window), losses) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_needs_no_window(bad: float) -> None:
    assert first_divergence(Divergence(), [4.0, 3.9, bad, 3.8]) == 3
    assert first_divergence(Divergence(), [bad]) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_diverges_though_the_loss_is_fine(bad: float) -> None:
    history = LossHistory().after(4.0, 20)
    assert has_diverged(Divergence(), history, bad)
    assert not has_diverged(Divergence(), history, 1.0)


def test_nothing_has_diverged_before_the_first_update() -> None:
    assert not has_diverged(Divergence(), LossHistory(), 0.0)
