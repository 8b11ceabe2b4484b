"""A track: a trajectory and the steps that one run of the study wants of it."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from coolbits.artifacts.node import Node, Ref, fingerprint_of
from coolbits.optim.schedules import learning_rate, phase
from coolbits.study.recipes.training import Checkpoint, Trajectory


@dataclass(frozen=True)
class Track:
    """A trajectory and the steps wanted of it, for one run of the study.

    `steps` rise. `family` is the trajectory at the root: a trunk and its branches are one family. `columns` describe
    the run. `ends_run` is false for the trunk of a WSD run, which goes on in its branch.
    """

    recipe: Trajectory
    parents: dict[str, Ref]
    name: str
    family: str
    steps: tuple[int, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    ends_run: bool = True

    def checkpoint(self, step: int) -> Node:
        """Return the node of the checkpoint after `step` updates."""
        recipe = Checkpoint(trajectory=self.recipe, step=step).identity()
        fingerprint = fingerprint_of("checkpoint", recipe, self.parents)
        return Node("checkpoint", f"{self.name}/step_{step:07d}", recipe, self.parents, fingerprint)

    def previous(self, step: int) -> Ref | None:
        """Return the checkpoint wanted before that at `step`; before the first, the one that a branch left from."""
        earlier = bisect_left(self.steps, step)
        return self.checkpoint(self.steps[earlier - 1]).ref if earlier else self.parents.get("start")

    def row(self, step: int) -> dict[str, Any]:
        """Return the columns that describe the checkpoint at `step` in every table."""
        schedule, last_update = self.recipe.schedule, max(step - 1, 0)
        return self.columns | {
            "trajectory": self.name,
            "family": self.family,
            "step": step,
            "tokens": step * self.recipe.batch_tokens,
            "lr": learning_rate(schedule, self.recipe.peak_lr, last_update),
            "phase": phase(schedule, last_update),
            "final": self.ends_run and step == self.steps[-1],
        }
