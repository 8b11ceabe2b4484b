"""A job: nodes of one kind made by one process, so that short work shares the cost of starting Python."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import json_kind
from coolbits.artifacts.node import Node

_REQUIRED = ("kind", "name", "nodes")


@dataclass(frozen=True)
class Job:
    """What one call of `coolbits KIND RECIPE OUT` does: make these nodes, with these execution settings.

    `locations` says where on this machine the things lie that recipes name by digest; it is never identity.
    """

    kind: str
    name: str
    nodes: tuple[Node, ...]
    execution: dict[str, Any] = field(default_factory=dict)
    locations: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain JSON values: the RECIPE file."""
        return vars(self) | {"nodes": [node.to_json() for node in self.nodes]}

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read a RECIPE file.

        Raises:
            CoolbitsError: if it is missing or not a job, or has nodes of other kinds.
        """
        try:
            value = _checked(json.loads(path.read_bytes()))
            job = cls(**value | {"nodes": tuple(Node.from_json(node) for node in value["nodes"])})
        except FileNotFoundError:
            raise CoolbitsError(f"{path}: no such recipe file") from None
        except OSError as error:
            raise CoolbitsError(f"{path}: not a recipe file ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CoolbitsError(
                f"{path}: not a recipe file ({_said(error)}); `snakemake` writes these, one a job"
            ) from None
        for node in job.nodes:
            if node.kind != job.kind:
                raise CoolbitsError(f"{path}: {node.name} is of kind {node.kind!r} in a job of kind {job.kind!r}")
        return job


def _checked(value: Any) -> dict[str, Any]:
    """Refuse, before Python does in words of its own, what has not the keys of a job."""
    if not isinstance(value, dict):
        raise ValueError(f"it holds {json_kind(value)}; keys and values are expected")
    known = [one.name for one in fields(Job)]
    for key in value:
        if key not in known:
            raise ValueError(f"unknown key {key!r}; allowed: {', '.join(known)}")
    for key in _REQUIRED:
        if key not in value:
            raise ValueError(f"{key}: missing")
    return value


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"nodes: {error.args[0]}: missing"
    if isinstance(error, RecursionError):
        return "more levels than can be read"
    return str(error) if isinstance(error, ValueError) else "nodes: not keys and values as in other recipe files"
