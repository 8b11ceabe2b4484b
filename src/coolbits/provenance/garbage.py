"""Garbage: artifacts and unfinished work that no study reaches and no kept result was made from.

What a result was made from is never guessed: where a link of a kept result is lost, nothing at all may be removed.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import time

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import TEMPORARY, remove_folder
from coolbits.artifacts.manifest import MANIFEST
from coolbits.loops.locks import LOCK, demand_free
from coolbits.provenance.lineage import Artifact, Key, artifacts_below, reach, read_artifact
from coolbits.stages import STAGES

RESULTS = ("table", "figure", "claims", "analysis")
_PLACES = {kind: place for place, kind in enumerate(STAGES)}
# Other machines that share the results have locks and processes that are not seen from here. Most jobs write something
# more often than that; one that does not, and loses its folder, fails and publishes nothing.
HOURS_AT_WORK = 24


@dataclass(frozen=True)
class Garbage:
    """A folder that can go: where, why, and how many bytes it has."""

    path: Path
    why: str
    bytes: int


@dataclass(frozen=True)
class Sweep:
    """What can go, children before parents, and what stays.

    `held` stays because results that are there were made from it, `at_work` because a job may be at work in it: it is
    a folder that will become an artifact, or one of long work that no lock guards, and was written to in the last
    `HOURS_AT_WORK`.
    """

    garbage: list[Garbage]
    held: list[Key]
    at_work: list[Path]


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
    gone = sorted(there - kept, key=lambda key: (-_PLACES[key[0]], key))
    leftovers, unreached = list(_leftovers(root)), list(_work(root, kept))
    unguarded = [path for path in leftovers if path.name.endswith(".new")]
    unguarded += [path for path in unreached if not (path / LOCK).exists()]
    at_work = [path for path in unguarded if _is_young(path)]
    garbage = [
        *(_garbage(path, "no study reaches it") for path in _own_places(root, gone, there & kept)),
        *(_garbage(path, "work that no study needs") for path in unreached if path not in at_work),
        *(_garbage(path, "left by a job that was killed") for path in leftovers if path not in at_work),
    ]
    return Sweep(garbage, sorted(kept - wanted.keys()), at_work)


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


def _own_places(root: Path, gone: Iterable[Key], kept: Iterable[Key]) -> Iterator[Path]:
    """Yield the places of artifacts that can go: none twice, and none that links make that of a kept one, too."""
    taken = {root.joinpath(*key).resolve() for key in kept}
    for path in (root.joinpath(*key) for key in gone):
        if path.is_symlink():
            yield path
        elif (place := path.resolve()) not in taken:
            taken.add(place)
            yield path


def _work(root: Path, kept: Iterable[Key]) -> Iterator[Path]:
    """Yield the folders of long work: a trajectory's serves all its checkpoints, that of what was quantized nothing."""
    needed = {(kind, part) for kind, name in kept for part in (name, name.partition("/")[0])}
    needed -= {key for key in needed if key[0] == "quantized" and root.joinpath(*key, MANIFEST).is_file()}
    for kind in STAGES:
        for path in sorted((root / "work" / kind).glob("*")):
            if path.is_dir() and (kind, path.name) not in needed:
                yield path


def _leftovers(root: Path) -> Iterator[Path]:
    for kind in STAGES:
        for depth in ("*", "*/*"):
            yield from sorted(path for path in (root / kind).glob(depth) if TEMPORARY.fullmatch(path.name))


def _is_young(folder: Path) -> bool:
    try:
        written = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:  # renamed or removed while this looked
        return True
    return time() - written < HOURS_AT_WORK * 3600


def _garbage(path: Path, why: str) -> Garbage:
    if path.is_symlink():
        return Garbage(path, f"{why}; a link, and what it leads to stays", 0)
    return Garbage(path, why, sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()))


def other_studies(root: Path, studies: Iterable[str]) -> list[str]:
    """Return the studies that were run in this results folder and are not among `studies`."""
    return sorted({board.stem for board in (root / "work" / "boards").glob("*.json")} - set(studies))


def demand_idle(root: Path) -> None:
    """Demand that nothing works in the results folder.

    Snakemake has its locks where it runs: here, beside the results folder, or beside what that is a link to.

    Raises:
        CoolbitsError: if a training holds its lock, or Snakemake runs or was killed.
    """
    for path in sorted((root / "work").glob(f"*/*/{LOCK}")):
        demand_free(path)
    for folder in (Path.cwd(), root.absolute().parent, root.resolve().parent):
        locks = folder / ".snakemake" / "locks"
        if any(locks.glob("*")):
            raise CoolbitsError(
                f"{locks}: Snakemake runs here; wait for it, or, if it was killed, `snakemake --unlock`"
            )


def remove(garbage: Garbage, root: Path) -> None:
    """Remove a folder so that no reader sees half of it, and folders above it that this leaves empty.

    Of a link only itself is removed: what it leads to may be another's. Links to emptied folders stay, too.
    """
    retired = garbage.path.with_name(f".{garbage.path.name.lstrip('.')}.{uuid.uuid4().hex[:8]}.old")
    garbage.path.replace(retired)
    remove_folder(retired)
    for folder in garbage.path.parents:
        if folder == root or folder.is_symlink() or any(folder.iterdir()):
            break
        folder.rmdir()
