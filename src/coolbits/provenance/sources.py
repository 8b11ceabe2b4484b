"""Sources: what documents and pretrained models were read from, checked by digest where it lies on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.provenance.findings import Finding
from coolbits.provenance.lineage import Artifact, Lineage
from coolbits.study.sources import EMBEDDED

_COMMIT_DIGITS = 40


def check_sources(lineage: Lineage) -> Iterator[Finding]:
    """Yield which sources are not what the recipes name, and for information which cannot be checked here."""
    for artifact in lineage:
        recipe = artifact.manifest.recipe if artifact.manifest else {}
        source = recipe.get("calibration", recipe).get("source")
        if isinstance(source, dict):
            yield from _check(artifact, source)


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
        case {"kind": "hub", "id": str(dataset), "revision": str(revision)}:
            commit = len(revision) == _COMMIT_DIGITS
            moving = "" if commit else ", which is no commit: what it names may change"
            said = f"read from the hub's {dataset} at {revision}{moving}; not compared with it"
            yield Finding("source", (artifact.label,), said, information=True)


def _file(artifact: Artifact, digest: str, name: str, places: list[Path]) -> Iterator[Finding]:
    there = [place for place in places if place.is_file()]
    if not there:
        said = f"its source {name} is not where it was read; not compared with it"
        yield Finding("source", (artifact.label,), said, information=True)
    elif all(file_digest(place) != digest for place in there):
        yield Finding("source", (artifact.label,), f"its source {there[0]} is no longer the file that was read")


def _locations(artifact: Artifact) -> list[Path]:
    """Return where the sources of an artifact lie on the machine that made it: the RECIPE files of its kind say so."""
    found: list[Path] = []
    for path in sorted((artifact.root / "recipes").glob(f"{artifact.kind}-*.json")):
        try:
            job = Job.read(path)
        except CoolbitsError:
            continue
        if artifact.key in {(node.kind, node.name) for node in job.nodes}:
            found += [Path(place) for places in job.locations.values() for place in places]
    return found
