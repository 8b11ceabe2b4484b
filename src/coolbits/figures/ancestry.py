"""The models that a table's rows were made from, and which of them had diverged by then, as is found out later.

A trajectory has diverged since a step that may lie before the one at which the rule of `coolbits.loops.divergence`
noticed. Checkpoints kept in between have weights, and their manifests call them complete, as do those of all that is
made from them. A later checkpoint of the trajectory knows better.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import Manifest, read_manifest

# Parents that are models, or are made from one; others lead to data.
_MODELS = ("checkpoint", "average", "finetuned", "quantized")


class Ancestry:
    """Manifests of a results folder, each read once, and the way from an artifact up to the checkpoints behind it."""

    def __init__(self, root: Path) -> None:
        """Look into the results folder `root`."""
        self._root = root
        self.manifest = cache(read_manifest)
        self._digest = cache(lambda place: self.manifest(place).digest)
        self._behind = cache(lambda place: frozenset(self._walk(place)))

    def parent(self, place: Path, role: str) -> Manifest:
        """Return the manifest of the parent that fills `role` of the artifact at `place`.

        Raises:
            CoolbitsError: if it is missing, or is no longer what that artifact was made from.
        """
        return self.manifest(self._parent(place, role))

    def divergences(self, places: Iterable[Path]) -> dict[str, int]:
        """Return since which step trajectories have diverged, by name, as any checkpoint behind these artifacts says.

        Raises:
            CoolbitsError: as `parent`.
        """
        found: dict[str, int] = {}
        for checkpoint in frozenset().union(*map(self._behind, places)):
            manifest = self.manifest(checkpoint)
            if manifest.diverged:
                trajectory, since = _trajectory(manifest), int(manifest.summary["diverged_step"])
                found[trajectory] = min(since, found.get(trajectory, since))
        return found

    def diverged_step(self, place: Path, divergences: Mapping[str, int]) -> int | None:
        """Return the step since which a trajectory behind the artifact had diverged when it was made, else None.

        Of a trunk what counts is the part up to the checkpoint that a branch left from.
        """
        behind = [self.manifest(checkpoint) for checkpoint in self._behind(place)]
        known = [(divergences[_trajectory(one)], one) for one in behind if _trajectory(one) in divergences]
        return min((since for since, one in known if since <= int(one.recipe["step"])), default=None)

    def _walk(self, place: Path) -> Iterator[Path]:
        own = self.manifest(place)
        if own.kind == "checkpoint":
            yield place
        for role, stated in own.parents.items():
            if stated["kind"] in _MODELS:
                yield from self._behind(self._parent(place, role))

    def _parent(self, place: Path, role: str) -> Path:
        child = self.manifest(place)
        stated = child.parents[role]
        parent = self._root / stated["kind"] / stated["name"]
        if self._digest(parent) != stated["digest"]:
            raise CoolbitsError(
                f"{stated['kind']}/{stated['name']}: not what {child.kind}/{child.name} was made from; run `snakemake`"
            )
        return parent


def _trajectory(checkpoint: Manifest) -> str:
    return checkpoint.name.rpartition("/")[0]
