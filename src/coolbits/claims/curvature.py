"""Claims about the curvature of the loss (paper A, section 6), and the evidence that they are judged on.

A model has one number of each kind, and nothing is resampled. Curvatures differ by factors: values are logarithms to
base 2, and a difference is a number of doublings.
"""

from functools import partial

import numpy as np
import pandas as pd

from coolbits.claims.claim import DOUBLINGS, Claim
from coolbits.claims.decay import beside_trunk, since_branch
from coolbits.claims.evidence import BROKEN, Evidence
from coolbits.claims.rates import fall_with_rate
from coolbits.rows import of_each_model

_SUMMARIES = {"sharpness": "top_eigenvalue", "trace": "trace"}
_WORDS = {"sharpness": "largest eigenvalue of the loss's Hessian", "trace": "trace of the loss's Hessian"}


def of_curvature(table: pd.DataFrame) -> Evidence:
    """Return the models in rows of a curvature table, by one measure: `top_eigenvalue` and `trace`, in doublings.

    A model of which one of them is not positive is left out, and counted.
    """
    models = table.drop_duplicates("measurement").assign(base_loss=lambda rows: rows.loss)
    whole = models[models.outcome == "complete"]
    positive = (whole[list(_SUMMARIES.values())] > 0).all(axis=1)
    rows, broken = whole[positive].reset_index(drop=True), whole[~positive].assign(outcome=BROKEN)
    values = {name: np.log2(rows[[name]].to_numpy(dtype="float64")) for name in _SUMMARIES.values()}
    lost = pd.concat([models[models.outcome == "diverged"], broken])
    return Evidence(rows.assign(evidence=np.arange(len(rows))), values, lost, broken=len(of_each_model(broken)))


def _claims_on(summary: str) -> dict[str, Claim]:
    """Return the claims on one summary of the Hessian, by name."""
    column, words = _SUMMARIES[summary], _WORDS[summary]
    claimed = partial(Claim, unit=DOUBLINGS, full_precision=True, table="curvature")
    return {
        f"decay-raises-{summary}": claimed(
            f"The {words} surges when the learning rate decays.",
            "paper A, section 6, Figure 9",
            f"Logarithm of the {words} at the end of each cooldown less that where it left the trunk; mean over "
            "cooldowns.",
            f"From the branch point to the end of a cooldown the {words} changed by {{effect}}.",
            "the curvature of cooldowns' ends, and of their trunk's checkpoint at the branch",
            partial(since_branch, column=column),
        ),
        f"decay-raises-{summary}-at-equal-tokens": claimed(
            f"It is the decay that raises the {words}: a trunk that saw as many tokens at a constant rate has a "
            "smaller one.",
            "paper A, section 6, Figure 9",
            f"Logarithm of the {words} at the end of each cooldown less the trunk's after equally many tokens, "
            "interpolated between its checkpoints; mean over cooldowns.",
            f"After equally many tokens the {words} at the end of a cooldown differs from the trunk's by {{effect}}.",
            "the curvature of cooldowns that end before their trunk does, and of the trunk around these ends",
            partial(beside_trunk, column=column),
        ),
        f"higher-rate-lowers-{summary}": claimed(
            f"Higher peak learning rates end with a smaller {words}.",
            "paper A, section 6, Figure 26",
            f"Fall of the logarithm of the final {words} with each tenfold peak rate, fitted to the rates whose "
            "final loss, as measured with the curvature, is within 5 % of the best.",
            f"With each tenfold peak rate the final {words} fell by {{effect}}.",
            "the curvature at the ends of runs at two peak rates or more, all else equal",
            partial(fall_with_rate, column=column),
        ),
    }


OF_CURVATURE = _claims_on("sharpness") | _claims_on("trace")
