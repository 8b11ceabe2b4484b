"""Manifests and records read without trust: whatever a damaged file holds becomes a sentence, never a crash."""

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from coolbits.artifacts.files import json_text
from coolbits.artifacts.manifest import Manifest, sealed

_Model = TypeVar("_Model", bound=BaseModel)


class Code(BaseModel):
    """The code slice that made an artifact: entry module, digest of the slice, digest of each module."""

    entry: str
    digest: str
    modules: dict[str, str]


class Git(BaseModel):
    """The commit, and whether the tree had changes that are not in it."""

    commit: str
    dirty: bool


class Host(BaseModel):
    """The machine."""

    cpu: str


class Environment(BaseModel):
    """Versions, lock file, commit, machine."""

    python: str
    packages: dict[str, str]
    lock: str | None
    git: Git | None
    host: Host
    threads: str | None
    device: str

    @property
    def computer(self) -> str:
        """What computed: the accelerator, or the CPU by its model."""
        return self.device if self.device != "cpu" else f"cpu ({self.host.cpu})"


class Record(BaseModel):
    """How an artifact came about: the parts of record.json that are looked at."""

    code: Code
    environment: Environment
    started: str
    seconds: float
    beside: dict[str, str]
    manifest: dict[str, Any]


class Acceptance(BaseModel):
    """What accepted.json says: under which code, by whom, why and when an artifact was declared valid."""

    digest: str
    who: str
    why: str
    when: str


class _Parent(BaseModel):
    kind: str
    name: str
    fingerprint: str
    digest: str


class _File(BaseModel):
    sha256: str
    bytes: int


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    kind: str
    name: str
    fingerprint: str
    recipe: dict[str, Any]
    parents: dict[str, _Parent]
    files: dict[str, _File]
    summary: dict[str, Any]


def read_values(path: Path) -> Any:
    """Return the values of a JSON file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read, saying why.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"not readable ({reason})") from None


def demand_written(path: Path, values: Any) -> None:
    """Demand that a JSON file which says `values` is to the byte as `write_json` writes them.

    Raises:
        ValueError: if it says the same in other bytes.
    """
    if path.read_bytes() != json_text(values).encode():
        raise ValueError("not as it was written: the same, but in other bytes")


def read_sealed(path: Path) -> Any:
    """Return the values of a JSON file that carries its own digest.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read, or is not as it was written.
    """
    values = read_values(path)
    if not isinstance(values, dict) or values != sealed(values):
        raise ValueError("not as it was written: its seal does not fit")
    demand_written(path, values)
    return values


def parse_manifest(values: Any) -> Manifest:
    """Return the manifest that JSON values hold.

    Raises:
        ValueError: if it is none, or names a path that leads out of the results.
    """
    stated = parse(_Manifest, values)
    paths = [f"{parent.kind}/{parent.name}" for parent in stated.parents.values()]
    for path in [f"{stated.kind}/{stated.name}", *paths, *stated.files]:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"it names {path!r}, which is not in the results folder")
    return Manifest.from_json(values)


def parse(model: type[_Model], values: Any) -> _Model:
    """Return JSON values as a record or an acceptance.

    Raises:
        ValueError: naming the first key that is not as it should be.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
        raise ValueError(f"not as expected ({place}{first['msg']})") from None
