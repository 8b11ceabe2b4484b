"""Garbage: artifacts and unfinished work that no study reaches and no kept result was made from.

What a result was made from is never guessed: where a link of a kept result is lost, nothing at all may be removed.
"""

import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.loops.locks import LOCK, demand_free
from coolbits.provenance.lineage import Artifact, Key, artifacts_below, reach, read_artifact
from coolbits.stages import STAGES

RESULTS = ("table", "figure", "claims", "analysis")
_PLACES = {kind: place for place, kind in enumerate(STAGES)}
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.(new|old)")


@dataclass(frozen=True)
class Garbage:
    """A folder that can go: where, why, and how many bytes it has."""

    path: Path
    why: str
    bytes: int


@dataclass(frozen=True)
class Sweep:
    """What can go, children before parents, and what only stays because results that are there were made from it."""

    garbage: list[Garbage]
    held: list[Key]


def find_garbage(root: Path, wanted: Mapping[Key, str], studies: Iterable[str]) -> Sweep:
    """Return what can go from the results folder `root`.

    Kept is what is `wanted`, by key with its fingerprint, every result of a study that is not one of `studies`, and all
    that any of these was made from, as manifests have it.

    Raises:
        CoolbitsError: if it cannot be told what something kept was made from.
    """
    given, there = set(studies), set(artifacts_below(root, root))
    others = {key for key in there if key[0] in RESULTS and key[1].partition("/")[0] not in given}
    read = cache(partial(read_artifact, root))
    for key in others:
        _demand_known(read(key))
    kept = wanted.keys() | reach(others | (wanted.keys() & there), lambda key: _parents(read(key), read, wanted))
    gone = sorted((key for key in there if key not in kept), key=lambda key: (-_PLACES[key[0]], key))
    garbage = [
        *(_garbage(root.joinpath(*key), "no study reaches it") for key in gone),
        *(_garbage(path, "work that no study reaches") for path in _work(root, kept)),
        *(_garbage(path, "left by a job that was killed") for path in _leftovers(root)),
    ]
    return Sweep(garbage, sorted(kept - wanted.keys()))


def _parents(artifact: Artifact, read: Callable[[Key], Artifact], wanted: Mapping[Key, str]) -> Iterable[Key]:
    for role, key in artifact.parents.items():
        stated = artifact.manifest.parents[role]["fingerprint"] if artifact.manifest else None
        if wanted.get(key) != stated:
            _demand_known(read(key))
    return artifact.parents.values()


def _demand_known(artifact: Artifact) -> None:
    if artifact.manifest is None:
        raise CoolbitsError(
            f"{artifact.directory}: a result that stays needs it, but it has no readable manifest, so what it was made "
            "from is not known; make it again, or delete the results that need it: `coolbits audit` names them"
        )


def _work(root: Path, kept: Iterable[Key]) -> Iterator[Path]:
    """Yield the folders of long work; that of a trajectory serves all of its checkpoints."""
    needed = {(kind, part) for kind, name in kept for part in (name, name.partition("/")[0])}
    for kind in STAGES:
        for path in sorted((root / "work" / kind).glob("*")):
            if path.is_dir() and (kind, path.name) not in needed:
                yield path


def _leftovers(root: Path) -> Iterator[Path]:
    for kind in STAGES:
        for depth in ("*", "*/*"):
            yield from sorted(path for path in (root / kind).glob(depth) if _LEFTOVER.fullmatch(path.name))


def _garbage(path: Path, why: str) -> Garbage:
    return Garbage(path, why, sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()))


def other_studies(root: Path, studies: Iterable[str]) -> list[str]:
    """Return the studies that were run in this results folder and are not among `studies`."""
    return sorted({board.stem for board in (root / "work" / "boards").glob("*.json")} - set(studies))


def demand_idle(root: Path) -> None:
    """Demand that nothing works in the results folder.

    Raises:
        CoolbitsError: if a training holds its lock, or Snakemake runs or was killed.
    """
    for path in sorted((root / "work").glob(f"*/*/{LOCK}")):
        demand_free(path)
    locks = root.resolve().parent / ".snakemake" / "locks"
    if any(locks.glob("*")):
        raise CoolbitsError(f"{locks}: Snakemake runs here; wait for it, or, if it was killed, `snakemake --unlock`")


def remove(garbage: Garbage, root: Path) -> None:
    """Remove a folder so that no reader sees half of it, and folders above it that this leaves empty."""
    retired = garbage.path.with_name(f".{garbage.path.name.lstrip('.')}.{uuid.uuid4().hex[:8]}.old")
    garbage.path.replace(retired)
    shutil.rmtree(retired)
    for folder in garbage.path.parents:
        if folder == root or any(folder.iterdir()):
            break
        folder.rmdir()
