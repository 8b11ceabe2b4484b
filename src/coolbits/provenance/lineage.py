"""Lineage: an artifact and all that it was made from, read from manifests, however damaged some of them are."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import digest_of
from coolbits.artifacts.manifest import MANIFEST, RECORD, Manifest
from coolbits.provenance.findings import Finding
from coolbits.provenance.records import Record, demand_written, parse, parse_manifest, read_sealed, read_values
from coolbits.stages import STAGES

Key = tuple[str, str]
_Read = TypeVar("_Read")
_REMEDY = "`coolbits audit` says what else is wrong"
_PLACES = {kind: place for place, kind in enumerate(STAGES)}


@dataclass(frozen=True)
class Artifact:
    """An artifact as it lies on disk; `key` is its kind and name.

    `manifest` is that of manifest.json or, where that cannot be read, the copy in record.json; None if there is
    neither. `digest` is the manifest's, by which children name it. `faults` says what is wrong with the two files.
    """

    root: Path
    key: Key
    manifest: Manifest | None = None
    digest: str | None = None
    record: Record | None = None
    faults: tuple[Finding, ...] = ()

    @property
    def kind(self) -> str:
        """Its kind."""
        return self.key[0]

    @property
    def label(self) -> str:
        """Its path below the results folder."""
        return "/".join(self.key)

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self.root.joinpath(*self.key)

    @cached_property
    def parents(self) -> dict[str, Key]:
        """The keys of its parents, by role."""
        stated = self.manifest.parents if self.manifest else {}
        return {role: (parent["kind"], parent["name"]) for role, parent in stated.items()}

    @property
    def bytes(self) -> int:
        """Bytes of its declared files."""
        return sum(entry["bytes"] for entry in self.manifest.files.values()) if self.manifest else 0


@dataclass(frozen=True)
class Lineage:
    """Artifacts and all that they were made from, by key: in the order of the stages, then by name.

    One that others were made from but that is not there is among them, without manifest and record.
    """

    root: Path
    artifacts: dict[Key, Artifact]

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self.artifacts.values())

    def __len__(self) -> int:
        return len(self.artifacts)

    @property
    def tops(self) -> list[Artifact]:
        """The artifacts that nothing else here was made from: figures and claims, if there are any."""
        needed = {parent for artifact in self for parent in artifact.parents.values()}
        return [artifact for artifact in self if artifact.key not in needed]

    def behind(self, top: Artifact) -> list[Artifact]:
        """Return the artifact `top` and all that it was made from."""
        found = reach([top.key], lambda key: self.artifacts[key].parents.values())
        return [artifact for artifact in self if artifact.key in found]

    def of_kind(self, kind: str) -> list[Artifact]:
        """Return the artifacts of one kind."""
        return [artifact for artifact in self if artifact.kind == kind]


def trace(root: Path, starts: Iterable[Key]) -> Lineage:
    """Walk from `starts` through the parents that manifests name, back to what has none."""
    found: dict[Key, Artifact] = {}

    def parents(key: Key) -> Iterable[Key]:
        found[key] = read_artifact(root, key)
        return found[key].parents.values()

    reach(starts, parents)
    order = sorted(found, key=lambda key: (_PLACES.get(key[0], len(_PLACES)), key))
    return Lineage(root, {key: found[key] for key in order})


def reach(starts: Iterable[Key], parents: Callable[[Key], Iterable[Key]]) -> set[Key]:
    """Return `starts` and all that can be reached from them; `parents` is asked once of each."""
    seen = set(starts)
    waiting = list(seen)
    while waiting:
        new = set(parents(waiting.pop())) - seen
        seen |= new
        waiting.extend(new)
    return seen


def declared(artifact: Artifact, name: str) -> bytes:
    """Return the bytes of a file of an artifact.

    Raises:
        CoolbitsError: if they are not there, or not those that its manifest declares.
    """
    entry = artifact.manifest.files.get(name) if artifact.manifest else None
    path = artifact.directory / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CoolbitsError(f"{path}: not readable ({error.strerror}); {_REMEDY}") from None
    if entry is None or sha256(content).hexdigest() != entry["sha256"]:
        raise CoolbitsError(f"{path}: not the file that its manifest declares; {_REMEDY}")
    return content


def is_artifact(directory: Path) -> bool:
    """Whether an artifact lies in the folder, or what is left of one that lost its manifest."""
    return (directory / MANIFEST).is_file() or (directory / RECORD).is_file()


def artifacts_below(root: Path, folder: Path) -> list[Key]:
    """Return the keys of all artifacts in `folder` of the results folder `root`, hidden ones left out.

    Raises:
        CoolbitsError: if a link on the way leads nowhere, for example to a disk that is not there.
    """
    found = []
    folders = [folder] if folder != root else [root / kind for kind in STAGES]
    above = frozenset(_identity(place) for place in folders[0].parents if place.is_relative_to(root))
    _demand_targets(folders)
    for place in (place for below in folders for place in folders_below(below, above)):
        if is_artifact(place):
            found.append(place.relative_to(root).parts)
        else:
            _demand_targets(_listed(place))
    return [(kind, "/".join(name)) for kind, *name in sorted(found)]


def folders_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield `folder`, if it is one, and all below, hidden ones left out, also those behind links.

    A link that leads back to a folder on the way to it, or to one of `above`, is not followed.
    """
    if not folder.is_dir() or (identity := _identity(folder)) in above:
        return
    yield folder
    for path in _listed(folder):
        yield from folders_below(path, above | {identity})


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _demand_targets(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise CoolbitsError(
                f"{path}: a link that leads nowhere; mount what it leads to, or delete it if that is gone for good"
            )


def figure_lineage(manifest: Manifest) -> str:
    """Return the lineage digest that the files of this figure carry: of its fingerprint and its parents' digests."""
    parents = {role: parent["digest"] for role, parent in manifest.parents.items()}
    return digest_of({"fingerprint": manifest.fingerprint, "parents": parents})


def read_artifact(root: Path, key: Key) -> Artifact:
    """Read manifest and record of an artifact; what is wrong with them becomes faults, never an exception."""
    directory, label = root.joinpath(*key), "/".join(key)
    if not is_artifact(directory):
        return Artifact(root, key)
    faults: list[Finding] = []

    def attempt(name: str, read: Callable[[], _Read]) -> _Read | None:
        try:
            return read()
        except FileNotFoundError:
            faults.append(Finding("missing", (f"{label}/{name}",), "no such file"))
        except ValueError as error:
            faults.append(Finding("changed", (f"{label}/{name}",), str(error)))
        return None

    record = attempt(RECORD, lambda: parse(Record, read_sealed(directory / RECORD)))
    copy = attempt(RECORD, lambda: _digested(record.manifest)) if record else None
    found = attempt(MANIFEST, lambda: _digested(read_values(directory / MANIFEST)))
    if found:
        stated = found[0].to_json()
        attempt(MANIFEST, lambda: demand_written(directory / MANIFEST, stated))
    if found and copy and found != copy:
        faults.append(Finding("changed", (f"{label}/{MANIFEST}",), "not the manifest that record.json has a copy of"))
    manifest, digest = found or copy or (None, None)
    if manifest and (manifest.kind, manifest.name) != key:
        said = f"the manifest of {manifest.kind}/{manifest.name}, not of what lies here"
        faults.append(Finding("changed", (f"{label}/{MANIFEST}",), said))
    return Artifact(root, key, manifest, digest, record, tuple(faults))


def _digested(values: Any) -> tuple[Manifest, str]:
    manifest = parse_manifest(values)
    return manifest, manifest.digest
