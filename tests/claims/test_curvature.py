"""Claims on curvature: models have one number each, and differ by factors."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from coolbits.claims.curvature import OF_CURVATURE, of_curvature
from coolbits.claims.evidence import Evidence
from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED, Effect, judge

Frame = pd.DataFrame
Make = Callable[..., Frame]


@pytest.fixture(scope="module")
def table(study: Callable[..., tuple[Frame, Frame]], curvatures: Callable[[Frame], Frame]) -> Make:
    """Return a function of the sign of effects, and of the number of seeds, that gives a curvature table."""
    return lambda sign, seeds=3: curvatures(study(sign, seeds)[0])


def _effect(name: str, evidence: Evidence) -> Effect:
    effect = OF_CURVATURE[name].measure(evidence)
    assert effect is not None
    return effect


def _verdict(name: str, evidence: Evidence) -> str:
    return judge(_effect(name, evidence), OF_CURVATURE[name].form, 0.95).verdict


@pytest.mark.parametrize("name", OF_CURVATURE)
def test_made_to_support_to_contradict_and_to_say_nothing(name: str, table: Make) -> None:
    assert _verdict(name, of_curvature(table(1.0))) == SUPPORTED
    assert _verdict(name, of_curvature(table(-1.0))) == CONTRADICTED
    assert _verdict(name, of_curvature(table(0.0))) == UNDECIDED


@pytest.mark.parametrize("name", OF_CURVATURE)
def test_one_seed_decides_nothing(name: str, table: Make) -> None:
    assert _verdict(name, of_curvature(table(1.0, 1))) == UNDECIDED


@pytest.mark.parametrize(("summary", "size"), [("sharpness", 1), ("trace", 2)])
def test_effects_are_doublings(summary: str, size: int, table: Make) -> None:
    evidence = of_curvature(table(1.0))

    def doublings(name: str) -> float:
        return float(np.mean([values[0] for values in _effect(name, evidence).units.values()]))

    # A cooldown adds two points of error, and three lie between the rates 0.003 and 0.03.
    assert doublings(f"decay-raises-{summary}") == pytest.approx(2.0 * size, abs=0.2)
    assert doublings(f"decay-raises-{summary}-at-equal-tokens") == pytest.approx(2.0 * size, abs=0.2)
    assert doublings(f"higher-rate-lowers-{summary}") == pytest.approx(3.0 * size, abs=0.2)


@pytest.mark.parametrize("trace", [-1.0, 0.0])
def test_a_model_whose_curvature_is_not_positive_is_left_out_and_counted(trace: float, table: Make) -> None:
    rows = table(1.0)
    rows.loc[rows.trajectory == "branch4-s1", "trace"] = trace
    evidence = of_curvature(rows)
    assert evidence.broken == 1
    name = "decay-raises-trace"
    # The other seeds have no part in what one of them lacks: the same two cooldowns are compared in all.
    assert _effect(name, evidence).uneven == 2
    assert _effect(name, evidence).n == _effect(name, of_curvature(table(1.0))).n - 3


def test_cooldowns_that_diverged_are_counted(table: Make) -> None:
    rows = table(1.0)
    lost = rows.trajectory == "branch4-s1"
    rows.loc[lost, ["top_eigenvalue", "trace", "loss"]] = np.nan
    rows.loc[lost, "outcome"] = "diverged"
    effect = _effect("decay-raises-trace", of_curvature(rows))
    assert (effect.lost, effect.uneven) == (1, 2)


def test_a_model_of_two_runs_is_counted_once(table: Make) -> None:
    rows = table(1.0)
    broken = rows[rows.trajectory == "branch4-s1"].assign(trace=-1.0)
    again = broken.assign(run="again", measurement=broken.measurement + rows.measurement.max() + 1)
    whole = rows[rows.trajectory != "branch4-s1"]
    assert of_curvature(pd.concat([whole, broken, again], ignore_index=True)).broken == 1


@pytest.mark.parametrize("name", ["higher-rate-lowers-sharpness", "higher-rate-lowers-trace"])
def test_rates_whose_loss_was_measured_far_above_the_best_do_not_count(name: str, table: Make) -> None:
    """As the page says: by the loss beside the curvature, within 5 % of the best."""
    rows = table(1.0)
    for factor, n in ((1.04, 9), (1.06, 6)):
        raised = rows.loss.mask(rows.trajectory.str.startswith("rate-high"), rows.loss * factor)
        assert _effect(name, of_curvature(rows.assign(loss=raised))).n == n
