"""Evidence from tables with one number a training: image classifiers by their accuracy, fine-tunings by their loss.

Nothing is resampled: these tables have no numbers of single images or answers. Each training is one end, `base_loss`
its score, lower is better, so that the best of the settings tried is found as in pretraining (`coolbits.rows`).

Trainings are compared within one entry of the study file; one that two entries share is an end of each. An entry may be
a grid over what no column tells (an augmentation, a set of conversations): the n-th training of one variant, setting
and seed is compared with the n-th of another, which is the same point of the grid.

Orders of the conversations are repeats within a start, as those of the data are within a seed. Where all trainings are
of one start, as of a model of the hub, there is nothing else that repeats: units are the orders, and the page says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from coolbits.claims.contrasts import independent
from coolbits.claims.evidence import Evidence
from coolbits.settings import TUNED, VARIANT

_IMAGES = ("images", "model", "schedule", "epochs", "batch_images")
_ANSWERS = ("model", "tokens", "schedule")
_POINT = "point"
_ONE_START = (
    "All of them start from models of one seed: units are orders of the conversations, and the interval does not speak "
    "of other starts."
)


@dataclass(frozen=True)
class Trainings(Evidence):
    """The ends of trainings; `values["full"]` has the score of each, shape [rows, 1].

    `same`: columns in which those of one entry agree; another entry may have the like with more seeds.
    """

    same: tuple[str, ...]

    @property
    def alike(self) -> tuple[str, ...]:
        """Columns in which trainings must agree for optimizers to be compared: with the entry and the grid's point."""
        return ("run", *self.same, _POINT)

    @property
    def cells(self) -> tuple[str, ...]:
        """Columns in which pairs must agree for units that have them to be means over the same."""
        return self.same

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """All trainings, those too that diverged and have no number."""
        return pd.concat([self.rows, self.lost], ignore_index=True)

    def units(self, chosen: pd.DataFrame) -> tuple[list[str], str]:
        """Return the seed of each training; of fine-tunings the start, those of one seed being one, if there are two.

        A model of the hub is one start, whatever the seed of the order.
        """
        if "start" not in chosen:
            return super().units(chosen)
        starts = independent([(start, seed) for start, seed in zip(chosen.start, chosen.start_seed, strict=True)])
        if len(set(starts)) > 1:
            return starts, ""
        return [str(order) for order in chosen.data_seed], _ONE_START if chosen.data_seed.nunique() > 1 else ""


def of_images(table: pd.DataFrame) -> Trainings:
    """Return the classifiers of a vision table, scored by their share of errors on held-out images at the end, in %."""
    tests = table[table.split == "test"].sort_values("step").drop_duplicates("trajectory", keep="last")
    scores = 100 * (1 - tests.set_index("trajectory").accuracy)
    return _trainings(table, scores, _IMAGES)


def of_answers(table: pd.DataFrame) -> Trainings:
    """Return the fine-tunings of their table, scored by the loss on held-out answers at the end, in nats per token.

    Those are compared that have a seed of the start and one of the order of the conversations in common. Models whose
    start had diverged already are on no trial.
    """
    started = table.groupby("trajectory").loss.transform("count") > 0
    kept = table[started]
    scores = kept[kept["last"]].drop_duplicates("trajectory").set_index("trajectory").loss
    seeds = kept.seed.astype("str")
    return _trainings(kept.assign(start_seed=seeds, seed=seeds + "/" + kept.data_seed.astype("str")), scores, _ANSWERS)


def _trainings(table: pd.DataFrame, scores: pd.Series, same: Sequence[str]) -> Trainings:
    """Return each trajectory of `table` once an entry, with its score; one that diverged has none."""
    ends = table.drop_duplicates(["run", "trajectory"]).reset_index(drop=True)
    complete = ends.outcome == "complete"
    ends = ends.assign(base_loss=ends.trajectory.map(scores).astype("float64").where(complete))
    ends[_POINT] = ends.groupby(["run", *same, *VARIANT, *TUNED, "seed"], dropna=False).cumcount()
    rows = ends[complete].reset_index(drop=True)
    values = {"full": rows[["base_loss"]].to_numpy(dtype="float64")}
    return Trainings(rows.assign(evidence=np.arange(len(rows))), values, ends[~complete], tuple(same))
