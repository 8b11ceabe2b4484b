"""Manifests: what an artifact is (content, compared by everything downstream) and how it came about (record).

`manifest.json` holds only what the same recipe gives again: recipe, parents, digests of the files, the outcome.
`record.json` beside it holds what changes from run to run: code slice, environment, host, times, and a copy of the
manifest, so that a manifest deleted by the workflow engine can be put back without doing the work again.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import digest_of, file_digest, known_digest
from coolbits.artifacts.node import Node

MANIFEST = "manifest.json"
RECORD = "record.json"
# Tokens a second along a training: of one run alone, like the record, and like it no content.
THROUGHPUT = "throughput.parquet"
# Seconds that each module's quantization took: the same.
SECONDS = "seconds.parquet"
BESIDE = (THROUGHPUT, SECONDS)
_NO_CONTENT = (MANIFEST, RECORD, *BESIDE)
_FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """The content part of an artifact.

    `files` maps a path inside the artifact to its SHA-256 and size in bytes. `parents` maps a role to the parent's
    name, fingerprint and manifest digest. `summary` holds the few results that others want without opening files; its
    key `outcome` is "complete" or "diverged".
    """

    kind: str
    name: str
    fingerprint: str
    recipe: dict[str, Any]
    parents: dict[str, dict[str, str]]
    files: dict[str, dict[str, Any]]
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: what a child records of its parent."""
        return digest_of(self.to_json())

    @property
    def diverged(self) -> bool:
        """Whether this artifact says that a trajectory, or what it was made from, diverged."""
        return self.summary.get("outcome") == "diverged"

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values."""
        return {"format": _FORMAT, **vars(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Manifest":
        """Read back what `to_json` gave."""
        return cls(**{key: item for key, item in value.items() if key != "format"})


def describe_files(root: Path) -> dict[str, dict[str, Any]]:
    """Return digest and size of every file below `root`, by relative path, save those that are no content."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name not in _NO_CONTENT:
            found[path.relative_to(root).as_posix()] = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    return found


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a finished artifact.

    Raises:
        CoolbitsError: if there is none, or it cannot be read.
    """
    path = directory / MANIFEST
    try:
        return Manifest.from_json(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        raise CoolbitsError(f"{directory}: {_why_no_artifact(directory)}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CoolbitsError(f"{path}: not a readable manifest ({error}); delete it to have it made again") from None


def _why_no_artifact(directory: Path) -> str:
    if not directory.exists():
        return "no such artifact; it was not made yet, or was removed"
    found = f"a folder without {MANIFEST}" if directory.is_dir() else "a file"
    return f"{found}, so no artifact; those are the folders results/KIND/NAME"


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return the record of an artifact, or None if there is none, or it is not as it was written."""
    return read_sealed(directory / RECORD)


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return the values of a sealed JSON file, or None if there is none, or it says something else than it did."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(values, dict) and values == sealed(values)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return values if whole else None


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values with their own digest under `seal`: nothing else vouches for a record."""
    own = {key: value for key, value in values.items() if key != "seal"}
    return {"seal": digest_of(own), **own}


def damaged_files(directory: Path, manifest: Manifest) -> list[str]:
    """Return the relative paths whose bytes are missing or not those that the manifest names."""
    damaged = []
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != expected["bytes"] or file_digest(path) != expected["sha256"]:
            damaged.append(name)
    return damaged


def damaged_beside(directory: Path, record: dict[str, Any]) -> list[str]:
    """Return the names of files beside the content that are missing or not those that the record vouches for."""
    return [name for name, digest in record.get("beside", {}).items() if _differs(directory / name, digest)]


def demand_whole(directory: Path, fingerprint: str) -> None:
    """Demand that an artifact is what its record says, to the byte, and was made by the recipe of `fingerprint`.

    Files that nobody has written to since are hashed once a process.

    Raises:
        CoolbitsError: naming what is not so, and what to do.
    """
    manifest, record = read_manifest(directory), read_record(directory)
    remedy = f"delete {directory} and run `snakemake` to have it made again"
    if record is None or Manifest.from_json(record["manifest"]) != manifest:
        raise CoolbitsError(f"{directory}: damaged: {MANIFEST} and {RECORD} do not fit each other; {remedy}")
    if manifest.fingerprint != fingerprint:
        raise CoolbitsError(f"{directory}: made by another recipe than the one that is asked for; run `snakemake`")
    stated = {name: entry["sha256"] for name, entry in manifest.files.items()} | record.get("beside", {})
    for name, digest in stated.items():
        if _differs(directory / name, digest):
            raise CoolbitsError(f"{directory / name}: damaged: not the bytes that were written; {remedy}")


def _differs(path: Path, digest: str) -> bool:
    return not path.is_file() or known_digest(path) != digest


def compose(node: Node, root: Path, directory: Path, summary: dict[str, Any]) -> Manifest:
    """Describe the files in `directory` as the artifact of `node`, whose parents live below `root`."""
    parents = {
        role: {"kind": ref.kind, "name": ref.name, "fingerprint": ref.fingerprint, "digest": manifest.digest}
        for role, ref in node.parents.items()
        for manifest in [read_manifest(ref.directory(root))]
    }
    summary = {"outcome": "complete"} | summary
    return Manifest(node.kind, node.name, node.fingerprint, node.recipe, parents, describe_files(directory), summary)


def write_manifest(directory: Path, manifest: Manifest, record: dict[str, Any]) -> None:
    """Write the record, sealed, with digests of what lies beside it, then, last, the manifest."""
    beside = {name: file_digest(directory / name) for name in BESIDE if (directory / name).is_file()}
    write_json(directory / RECORD, sealed(record | {"beside": beside, "manifest": manifest.to_json()}))
    write_json(directory / MANIFEST, manifest.to_json())
