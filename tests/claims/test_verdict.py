"""The decision rule: what it takes to be supported, contradicted, or neither."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED, Effect, Form, judge, rule

SPREAD = 0.05


def _effect(*estimates: float, margin: float = 0.0) -> Effect:
    """Return an effect with these estimates, one a unit, and a little noise over documents."""
    noise = np.random.default_rng(0).normal(0, SPREAD, 2000)
    units = {str(place): np.concatenate([[value], value + noise]) for place, value in enumerate(estimates)}
    return Effect(units, len(estimates), margin)


@pytest.mark.parametrize(
    ("estimates", "verdict"),
    [
        ((1.0, 1.2, 0.9), SUPPORTED),
        ((-1.0, -1.2, -0.9), CONTRADICTED),
        ((1.0, -1.2, 0.9), UNDECIDED),
        ((1.0,), SUPPORTED),
        ((0.05,), UNDECIDED),
        ((-0.05,), UNDECIDED),
        ((0.01, 1.0), UNDECIDED),
        # The interval excludes zero, but one unit has the other sign.
        ((3.0, 3.1, 2.9, 3.0, 3.1, -0.5), UNDECIDED),
        ((-3.0, -3.1, -2.9, -3.0, -3.1, 0.5), UNDECIDED),
    ],
)
def test_direction(estimates: tuple[float, ...], verdict: str) -> None:
    assert judge(_effect(*estimates), "direction", 0.95).verdict == verdict


@pytest.mark.parametrize(
    ("estimates", "verdict"),
    [
        ((0.1, -0.1, 0.05), SUPPORTED),
        ((3.0, 3.1, 2.9), CONTRADICTED),
        ((-3.0, -3.1), CONTRADICTED),
        ((0.9, 1.1), UNDECIDED),
    ],
)
def test_equivalence_within_a_margin_of_one(estimates: tuple[float, ...], verdict: str) -> None:
    assert judge(_effect(*estimates, margin=1.0), "equivalence", 0.95).verdict == verdict


def test_one_unit_has_the_interval_of_its_documents() -> None:
    judgement = judge(_effect(1.0), "direction", 0.95)
    assert (judgement.low, judgement.high) == pytest.approx((1 - 1.96 * SPREAD, 1 + 1.96 * SPREAD), abs=0.01)


def test_few_units_are_as_uncertain_as_their_sample_variance_says() -> None:
    values = np.random.default_rng(1).normal(0, 1, 12)
    quiet = Effect({str(place): np.full(20_001, value) for place, value in enumerate(values)}, 12)
    judgement = judge(quiet, "direction", 0.6827)
    assert (judgement.high - judgement.low) / 2 == pytest.approx(values.std(ddof=1) / np.sqrt(12), rel=0.1)


@pytest.mark.parametrize(
    ("estimates", "verdict"),
    [((1.0, 1.1, 0.9), SUPPORTED), ((-1.0, -1.1, -0.9), CONTRADICTED), ((1.0, 1.2), UNDECIDED), ((1.0,), UNDECIDED)],
)
def test_without_documents_the_interval_is_students(estimates: tuple[float, ...], verdict: str) -> None:
    units = {str(place): np.array([value]) for place, value in enumerate(estimates)}
    judgement = judge(Effect(units, len(units)), "direction", 0.95)
    assert (judgement.verdict, judgement.resampled) == (verdict, "nothing")
    spread = ttest_1samp(estimates, 0).confidence_interval(0.95) if len(estimates) > 1 else (None, None)
    assert (judgement.low, judgement.high) == pytest.approx(tuple(spread))


@pytest.mark.parametrize(
    ("estimates", "margin", "verdict"),
    [
        ((0.9, 0.2, -0.9), 1.0, SUPPORTED),
        ((1.0,), 1.0, SUPPORTED),
        ((0.0, 1.1), 1.0, CONTRADICTED),
        ((0.0, -1.1), 1.0, CONTRADICTED),
        ((0.0, 0.0), 0.0, SUPPORTED),
        ((0.0, 1e-3), 0.0, CONTRADICTED),
    ],
)
def test_exact_numbers_all_agree_and_have_no_interval(
    estimates: tuple[float, ...], margin: float, verdict: str
) -> None:
    units = {str(place): np.array([value]) for place, value in enumerate(estimates)}
    judgement = judge(Effect(units, len(units), margin), "exact", 0.95)
    assert (judgement.verdict, judgement.low, judgement.high) == (verdict, None, None)
    assert judgement.effect == pytest.approx(np.mean(estimates))


def test_the_rule_of_exact_numbers_says_that_there_is_no_interval() -> None:
    assert rule("exact", 0.95, "1 point", resampled=False) == (
        "These numbers are exact, so there is no interval. Supported if each lies within 1 point of zero, otherwise "
        "contradicted."
    )
    assert "Supported if each is zero" in rule("exact", 0.95)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("direction", "above zero and the effect is positive in every unit (seed); contradicted if both hold with"),
        ("equivalence", "Supported if the 90 % interval lies within 2 points of zero, contradicted if it lies wholly"),
        ("instability", "every run on trial diverged, or the 90 % interval of the others lies above 2 points;"),
        ("open", "called observed if the 90 % interval excludes zero and every unit (seed) agrees in sign."),
    ],
)
def test_the_rule_in_words_is_that_of_its_form(form: Form, said: str) -> None:
    assert said in rule(form, 0.9, "2 points")
    assert "a bootstrap over documents" in rule(form, 0.9, "2 points")
    assert "there is one number a model" in rule(form, 0.9, "2 points", resampled=False)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=5))
def test_the_reverse_of_an_effect_has_the_reverse_verdict(estimates: list[float]) -> None:
    effect = _effect(*estimates)
    reverse = Effect({unit: -values for unit, values in effect.units.items()}, effect.n)
    pairs = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED, UNDECIDED: UNDECIDED}
    verdicts = [judge(each, "direction", 0.95).verdict for each in (effect, reverse)]
    assert verdicts[1] == pairs[verdicts[0]]
