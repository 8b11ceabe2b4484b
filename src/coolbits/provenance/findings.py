"""What an audit says: one line a finding, and lines that only inform."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

What = Literal[
    "missing", "changed", "undeclared", "code", "dirty", "device", "environment", "hidden", "source", "outcome"
]
_SHOWN = 2


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the result should know.

    `where` names artifacts, or one file of an artifact, by their paths below the results folder. `information` is not
    held against the result: an audit with nothing else ends with status 0.
    """

    what: What
    where: tuple[str, ...]
    said: str
    information: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.information else self.what:<11} {some(self.where)}: {self.said}"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return vars(self) | {"where": list(self.where)}


def some(names: Iterable[str], shown: int = _SHOWN) -> str:
    """Say names in one line: all of a few, else the first ones and how many others there are."""
    every = list(names)
    if len(every) <= shown:
        return ", ".join(every)
    return f"{', '.join(every[: shown - 1])} and {len(every) - shown + 1:,} others"


def grouped(findings: Iterable[Finding]) -> list[Finding]:
    """Join findings that say the same of artifacts of one kind, so that a cause has one line, not hundreds."""
    groups: dict[Finding, list[str]] = defaultdict(list)
    for finding in findings:
        kind = finding.where[0].partition("/")[0]
        groups[replace(finding, where=(kind,))].extend(finding.where)
    return [replace(finding, where=tuple(where)) for finding, where in groups.items()]
