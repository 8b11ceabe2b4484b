"""Where a trajectory can go on from: checkpoints already made, and states saved since."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coolbits.artifacts.files import TEMPORARY, replacing
from coolbits.artifacts.hashing import digest_of
from coolbits.artifacts.node import Node, fingerprint_of
from coolbits.artifacts.store import Store
from coolbits.loops.ownership import Owner, belongs, mark, owner_of, usable
from coolbits.training.loop import Training
from coolbits.training.saved import write_training

_STEP = re.compile(r"step_([0-9]+)")


@dataclass(frozen=True)
class Source:
    """A directory to go on from, as `saved.write_training` wrote it, or with metrics alone if the run diverged."""

    step: int
    directory: Path
    diverged_step: int | None = None


@dataclass(frozen=True)
class Sources:
    """The sources of the trajectory that the checkpoint `node` belongs to.

    They are its checkpoints in the results folder, whatever study wanted them, if whole and current; and its saved
    states, if this code wrote them, from the parents as they are now, and nothing in them changed since.
    """

    node: Node
    store: Store

    @property
    def name(self) -> str:
        """The trajectory's name."""
        return self.node.name.rpartition("/")[0]

    @property
    def work(self) -> Path:
        """The trajectory's work folder."""
        return self.store.work_directory(self.node).parent

    def newest(self, after: int, until: int) -> Source | None:
        """Return the source with the most updates among those with more than `after` and at most `until`."""
        places = [*_steps_in(self._states), *_steps_in(self._checkpoints)]
        for directory in sorted(places, key=_step_of, reverse=True):
            if after < _step_of(directory) <= until and (source := self._source(directory)):
                return source
        return None

    def save(self, training: Training) -> None:
        """Save a state, then drop the ones it replaces: at every moment one of them is whole.

        A trajectory found to have diverged has none to save: its checkpoints will say so.
        """
        training.read()
        if training.memory.diverged_step is not None:
            return
        with replacing(self._states / f"step_{training.memory.step:07d}") as directory:
            write_training(training, self.tokenizer, directory)
            mark(directory, self._owner())
        self.drop(training.memory.step - 1)

    def drop(self, until: int) -> None:
        """Remove saved states with at most `until` updates, and those that cannot be used."""
        for directory in _steps_in(self._states):
            if _step_of(directory) <= until or not self._is_own(directory):
                shutil.rmtree(directory)

    def sweep(self) -> None:
        """Remove the half-written directories that a killed process left behind."""
        for folder in (self._states, self._checkpoints):
            for left in folder.glob(".step_*"):
                if TEMPORARY.fullmatch(left.name):
                    shutil.rmtree(left)

    def has_stale_state(self) -> bool:
        """Say whether a state was saved that cannot be used, since other code or other parents made it."""
        return any(not self._is_own(directory) for directory in _steps_in(self._states))

    @property
    def tokenizer(self) -> Path:
        """The directory of the tokenizer that belongs to the trajectory."""
        return self.node.parent_directory(self.store.root, "tokenizer")

    @property
    def _states(self) -> Path:
        return self.work / "states"

    @property
    def _checkpoints(self) -> Path:
        return self.store.directory(self.node).parent

    def _source(self, directory: Path) -> Source | None:
        if directory.parent == self._states:
            return Source(_step_of(directory), directory) if usable(directory, self._owner()) else None
        manifest = self.store.kept(self._checkpoint(_step_of(directory)))
        if manifest is None:
            return None
        return Source(_step_of(directory), directory, manifest.summary.get("diverged_step"))

    def _checkpoint(self, step: int) -> Node:
        kind, parents, recipe = self.node.kind, self.node.parents, self.node.recipe | {"step": step}
        return Node(kind, f"{self.name}/step_{step:07d}", recipe, parents, fingerprint_of(kind, recipe, parents))

    def _is_own(self, state: Path) -> bool:
        return belongs(state, self._owner())

    def _owner(self) -> Owner:
        return owner_of(self.node, self.store, digest_of(self.node.recipe["trajectory"]))


def _steps_in(folder: Path) -> Iterator[Path]:
    """Yield what is named as a step in a folder; beside checkpoints people may lay other things."""
    return (path for path in folder.glob("step_*") if _STEP.fullmatch(path.name))


def _step_of(directory: Path) -> int:
    return int(directory.name.removeprefix("step_"))
