"""Sources: what documents, models and pictures were read from, checked by digest where it lies on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.provenance.findings import Finding
from coolbits.provenance.lineage import Artifact, Lineage
from coolbits.study.recipes.vision import IDX_FILES
from coolbits.study.sources import EMBEDDED
from coolbits.vision.folders import listing_digest

_COMMIT_DIGITS = 40


def check_sources(lineage: Lineage) -> Iterator[Finding]:
    """Yield which sources are not what the recipes name, and for information which cannot be checked here."""
    for artifact in lineage:
        for source in _sources(artifact.manifest.recipe if artifact.manifest else {}):
            yield from _check(artifact, source)


def _sources(recipe: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what a recipe says it reads from outside the results: documents, models, tokenizers, pictures."""
    found = [recipe.get(name) for name in ("source", "tokenizer", "hub")]
    if isinstance(calibration := recipe.get("calibration"), dict):
        found.append(calibration.get("source"))
    yield from (source for source in found if isinstance(source, dict) and not _from_parents(source))


def _from_parents(source: dict[str, Any]) -> bool:
    """Whether it is made from parents: questions from a corpus, a tokenizer that is trained or a model's own."""
    built = source.get("kind") == "embedded" and "sha256" not in source
    return built or source.get("kind") in ("bpe", "pretrained")


def _check(artifact: Artifact, source: dict[str, Any]) -> Iterator[Finding]:
    match source:
        case {"kind": "embedded", "sha256": str(digest)}:
            yield from _file(artifact, digest, EMBEDDED.name, [EMBEDDED])
        case {"kind": "files", "names": list(names), "sha256": list(digests)}:
            places = _locations(artifact)
            for name, digest in zip(names, digests, strict=False):
                yield from _file(artifact, digest, name, [place for place in places if place.name == name])
        case {"kind": "directory", "names": list(names), "sha256": list(digests)}:
            places = _locations(artifact)
            for name, digest in zip(names, digests, strict=False):
                yield from _file(artifact, digest, name, [place / name for place in places])
        case {"kind": "gguf", "sha256": str(digest)}:
            places = [place for place in _locations(artifact) if place.suffix == ".gguf"]
            yield from _file(artifact, digest, "GGUF file", places)
        case {"kind": "local", "names": list(names), "sha256": list(digests)}:
            folders = _locations(artifact, "tokenizer")
            for name, digest in zip(names, digests, strict=False):
                yield from _file(artifact, digest, name, [folder / name for folder in folders])
        case {"kind": "idx", "sha256": list(digests)}:
            places = _locations(artifact, f"images/{artifact.key[1]}")
            for name, digest in zip(IDX_FILES, digests, strict=False):
                named = [place for place in places if place.name.removesuffix(".gz") == name]
                yield from _file(artifact, digest, name, named)
        case {"kind": "folder", "sha256": str(digest), "train": str(train), "test": str(test)}:
            yield from _pictures(artifact, digest, (train, test))
        case {"kind": "digits"}:
            said = "its digits came with scikit-learn, whose version the record has; not compared with them"
            yield Finding("source", (artifact.label,), said, information=True)
        case {"id": str(name), "revision": str(revision)}:
            said = f"read from the hub's {name} at {_revision(artifact, revision)}; not compared with it"
            yield Finding("source", (artifact.label,), said, information=True)
        case _:
            said = f"its source of kind {source.get('kind')!r} is none that the audit knows; not compared with it"
            yield Finding("source", (artifact.label,), said, information=True)


def _revision(artifact: Artifact, revision: str) -> str:
    """Say which commit was read: the revision, if it is one, else what the summary says; or that it is unknown."""
    summary = artifact.manifest.summary if artifact.manifest else {}
    if len(revision) == _COMMIT_DIGITS:
        return revision
    if commit := summary.get("commit"):
        return f"{commit}, which {revision} named then"
    kind = "whose commit is unknown" if "commit" in summary else "which is no commit"
    return f"{revision}, {kind}: what it names may change"


def _pictures(artifact: Artifact, digest: str, splits: tuple[str, str]) -> Iterator[Finding]:
    """Compare names and sizes of the pictures in a folder: of their contents no digest was taken."""
    places = _locations(artifact, f"images/{artifact.key[1]}")
    found = {place: listed for place in places if (listed := _listed(place, splits)) is not None}
    if not found:
        yield _moved(artifact, "folder of pictures")
    elif digest not in found.values():
        said = f"its source {next(iter(found))} no longer has the pictures that were read, by their names and sizes"
        yield Finding("source", (artifact.label,), said)


def _listed(folder: Path, splits: tuple[str, str]) -> str | None:
    """Return the digest of the pictures in a folder, an empty one if a class is gone; None if it cannot be read."""
    try:
        return listing_digest(folder, splits) if folder.is_dir() else None
    except CoolbitsError:
        return ""
    except OSError:
        return None


def _file(artifact: Artifact, digest: str, name: str, places: list[Path]) -> Iterator[Finding]:
    found = {place: read for place in places if (read := _digest(place)) is not None}
    if not found:
        yield _moved(artifact, name)
    elif digest not in found.values():
        said = f"its source {next(iter(found))} is no longer the file that was read"
        yield Finding("source", (artifact.label,), said)


def _digest(place: Path) -> str | None:
    """Return the digest of a file, or None where there is none that this user may read: it may be another's."""
    try:
        return file_digest(place)
    except OSError:
        return None


def _moved(artifact: Artifact, name: str) -> Finding:
    said = f"its source {name} is not where it was read, or not readable; not compared with it"
    return Finding("source", (artifact.label,), said, information=True)


def _locations(artifact: Artifact, of: str | None = None) -> list[Path]:
    """Return where the sources of an artifact lie on the machine that made it: the RECIPE files of its kind say so.

    Those under the name `of` alone, if one is given.
    """
    found: list[Path] = []
    for path in sorted((artifact.root / "recipes").rglob(f"{artifact.kind}-*.json")):
        try:
            job = Job.read(path)
        except CoolbitsError:
            continue
        if artifact.key in {(node.kind, node.name) for node in job.nodes}:
            named = job.locations.values() if of is None else [job.locations.get(of, [])]
            found += [Path(place) for places in named for place in places]
    return found
