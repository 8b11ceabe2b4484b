"""Curves of training: a run's trunk up to the branch, then what left it, smoothed over one percent of the steps."""

import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.figures.training import smoothed


def _logged(trajectory: str, first: int, last: int, loss: float) -> pd.DataFrame:
    steps = pd.Series(range(first, last + 1))
    return pd.DataFrame({"trajectory": trajectory, "step": steps, "tokens": 10 * steps, "loss": loss})


RUN = pd.DataFrame({"path": ["branch"], "family": ["trunk"], "branch_tokens": [1990.0]})
# The branch leaves after step 199, and has 101 steps; the trunk goes on.
METRICS = pd.concat([_logged("trunk", 1, 199, 0.0), _logged("trunk", 200, 400, 90.0), _logged("branch", 200, 300, 9.0)])


def test_a_curve_follows_the_trunk_up_to_the_branch_and_is_smoothed_over_three_of_its_300_steps() -> None:
    curve = smoothed("norms", METRICS, RUN, ["loss"])
    assert curve.step.tolist() == list(range(1, 301))
    assert curve.loss.tolist() == [0.0] * 198 + [3.0, 6.0] + [9.0] * 100


def test_a_step_that_trunk_and_branch_logged_is_the_branchs() -> None:
    both = pd.concat([METRICS, _logged("branch", 198, 199, 9.0)])
    curve = smoothed("norms", both, RUN, ["loss"]).set_index("step")
    assert len(curve) == 300 and curve.loss[[196, 197, 198, 199]].tolist() == [0.0, 3.0, 6.0, 9.0]


def test_a_run_without_a_trunk_is_whole() -> None:
    alone = RUN.assign(path="trunk", branch_tokens=float("nan"))
    assert smoothed("norms", METRICS, alone, ["loss"]).step.tolist() == list(range(1, 401))


def test_runs_without_metrics_are_refused() -> None:
    with pytest.raises(CoolbitsError, match="figure norms: the study has no metrics of the runs compared"):
        smoothed("norms", METRICS.assign(trajectory="other"), RUN, ["loss"])
