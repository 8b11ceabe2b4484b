"""A job: nodes of one kind made by one process, so that short work shares the cost of starting Python."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node


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
            value = json.loads(path.read_text())
            job = cls(**value | {"nodes": tuple(Node.from_json(node) for node in value["nodes"])})
        except FileNotFoundError:
            raise CoolbitsError(f"{path}: no such recipe file") from None
        except OSError as error:
            raise CoolbitsError(f"{path}: not a recipe file ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            raise CoolbitsError(f"{path}: not a recipe file ({reason}); `snakemake` writes these, one a job") from None
        for node in job.nodes:
            if node.kind != job.kind:
                raise CoolbitsError(f"{path}: {node.name} is of kind {node.kind!r} in a job of kind {job.kind!r}")
        return job
