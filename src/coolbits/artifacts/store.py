"""The results folder: makes the artifacts that are missing and keeps those that are whole and current."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from coolbits.artifacts.code import Slice
from coolbits.artifacts.environment import capture_environment
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import is_text, replacing, write_json
from coolbits.artifacts.manifest import (
    MANIFEST,
    Manifest,
    compose,
    damaged_beside,
    damaged_files,
    demand_whole,
    read_manifest,
    read_record,
    read_sealed,
    sealed,
    write_manifest,
)
from coolbits.artifacts.node import Node

ACCEPTED = "accepted.json"
Build = Callable[[Path], dict[str, Any]]


def demand_folder(root: Path) -> None:
    """Demand that the results folder is a folder, or can be made one.

    Raises:
        CoolbitsError: if a file is there or above, or a link that leads nowhere: a disk that is not mounted has results
            that must not be made again; or if its name is not UTF-8.
    """
    if not is_text(root):
        raise CoolbitsError(f"{root}: not valid UTF-8, which libraries take names for; rename the results folder")
    for place in (root, *root.parents):
        nowhere = place.is_symlink() and not place.exists()
        if nowhere or place.is_file():
            what = "a link that leads nowhere" if nowhere else "a file"
            raise CoolbitsError(f"{root}: {'' if place == root else f'{place} is '}{what}, not a results folder")


@dataclass(frozen=True)
class Store:
    """A results folder and the code slice of the stage that works in it.

    `root` holds one folder a kind, one folder a node. `work` (below it) holds unfinished long work.
    """

    root: Path
    code: Slice

    def directory(self, node: Node) -> Path:
        """Return where the node's artifact lives."""
        return node.directory(self.root)

    def work_directory(self, node: Node) -> Path:
        """Return the folder in which a long stage keeps what it needs to resume; never a declared output."""
        return self.root / "work" / node.kind / node.name

    def manifest(self, node: Node, role: str) -> Manifest:
        """Return the manifest of the parent that fills `role`."""
        return read_manifest(node.parent_directory(self.root, role))

    def is_current(self, node: Node) -> bool:
        """Whether the node's artifact is whole, made by this code (or accepted) from its parents as they are now."""
        return self.kept(node) is not None

    def seems_current(self, node: Node) -> bool:
        """Whether a manifest is there and the record says: by this recipe and code. Quick: no other file is read."""
        directory = self.directory(node)
        record = read_record(directory) if (directory / MANIFEST).exists() else None
        made = record is not None and record.get("manifest", {}).get("fingerprint") == node.fingerprint
        return record is not None and made and self._by_this_code(node, record)

    def kept(self, node: Node) -> Manifest | None:
        """Return the manifest of the node's artifact if it can stay as it is, else None."""
        directory = self.directory(node)
        record = read_record(directory)
        if record is None or "manifest" not in record:
            return None
        manifest = Manifest.from_json(record["manifest"])
        if manifest.fingerprint != node.fingerprint or manifest.kind != node.kind:
            return None
        if not self._by_this_code(node, record):
            return None
        for role, ref in node.parents.items():
            if manifest.parents.get(role, {}).get("digest") != read_manifest(ref.directory(self.root)).digest:
                return None
        return None if damaged_files(directory, manifest) or damaged_beside(directory, record) else manifest

    def _by_this_code(self, node: Node, record: dict[str, Any]) -> bool:
        if record.get("code", {}).get("digest") == self.code.digest:
            return True
        accepted = read_sealed(self.directory(node) / ACCEPTED)
        return accepted is not None and accepted["digest"] == self.code.digest

    def demand_parents(self, node: Node) -> None:
        """Demand that every parent of the node is whole, before it is read: damage must not become a result.

        Raises:
            CoolbitsError: naming what is damaged.
        """
        for ref in node.parents.values():
            demand_whole(ref.directory(self.root), ref.fingerprint)

    def ensure(self, node: Node, build: Build) -> bool:
        """Make the node's artifact with `build(directory) -> summary` unless it can be kept; say if it was made.

        `build` gets an empty directory; it becomes the artifact only when it is whole.

        Raises:
            CoolbitsError: if a parent is missing or damaged.
        """
        manifest = self.kept(node)
        if manifest is not None:
            if not _says(self.directory(node), manifest):
                write_json(self.directory(node) / MANIFEST, manifest.to_json())
            return False
        self.demand_parents(node)
        started, clock = datetime.now(UTC), monotonic()
        with replacing(self.directory(node)) as directory:
            summary = build(directory)
            seconds = monotonic() - clock
            manifest = compose(node, self.root, directory, summary)
            write_manifest(directory, manifest, self.record(started, seconds))
        return True

    def record(self, started: datetime, seconds: float) -> dict[str, Any]:
        """Return what is true of this run alone: code, environment, times."""
        return {
            "code": {"entry": self.code.entry, "digest": self.code.digest, "modules": self.code.modules},
            "environment": capture_environment(),
            "started": started.isoformat(),
            "seconds": round(seconds, 3),
        }


def _says(directory: Path, manifest: Manifest) -> bool:
    try:
        return read_manifest(directory) == manifest
    except CoolbitsError:
        return False


def accept(directory: Path, code: Slice, who: str, why: str) -> None:
    """Declare an artifact valid under the present code, though other code made it; the audit will say so."""
    read_manifest(directory)
    note = {"digest": code.digest, "who": who, "why": why, "when": datetime.now(UTC).isoformat()}
    write_json(directory / ACCEPTED, sealed(note))
