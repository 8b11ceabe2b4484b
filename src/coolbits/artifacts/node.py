"""A node: one artifact of the plan, named by what decides its bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import digest_of


@dataclass(frozen=True)
class Ref:
    """Names another node: its kind, its name and its fingerprint."""

    kind: str
    name: str
    fingerprint: str

    def directory(self, root: Path) -> Path:
        """Return where the node's artifact lives below the results folder `root`."""
        return root / self.kind / self.name


@dataclass(frozen=True)
class Node:
    """One artifact: what kind it is, the recipe that decides its bytes and the parents it is made from.

    `parents` maps a role ("corpus", "model", ...) to the node that fills it. A role may be filled by several nodes:
    then they are numbered ("member.0", "member.1", ...).
    """

    kind: str
    name: str
    recipe: dict[str, Any]
    parents: dict[str, Ref]
    fingerprint: str

    @property
    def ref(self) -> Ref:
        """The node without its recipe: enough to name it as a parent."""
        return Ref(self.kind, self.name, self.fingerprint)

    def directory(self, root: Path) -> Path:
        """Return where the artifact lives below the results folder `root`."""
        return self.ref.directory(root)

    def parent_directory(self, root: Path, role: str) -> Path:
        """Return the directory of the parent that fills `role`.

        Raises:
            CoolbitsError: if there is none.
        """
        if role not in self.parents:
            raise CoolbitsError(
                f"{self.kind}/{self.name}: no parent {role!r}, only {', '.join(self.parents) or 'none'}"
            )
        return self.parents[role].directory(root)

    def to_json(self) -> dict[str, Any]:
        """Return the node as plain JSON values, the inverse of `Node.from_json`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe,
            "parents": {role: vars(ref) for role, ref in self.parents.items()},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Node":
        """Read a node back from `to_json`; the fingerprint is computed again, not believed.

        Raises:
            ValueError: if the kind or a name, its own or a parent's, leads out of the results folder.
        """
        parents = {role: Ref(**ref) for role, ref in value["parents"].items()}
        for name in (
            value["kind"],
            value["name"],
            *(part for ref in parents.values() for part in (ref.kind, ref.name)),
        ):
            _demand_inside(name)
        fingerprint = fingerprint_of(value["kind"], value["recipe"], parents)
        return cls(value["kind"], value["name"], value["recipe"], parents, fingerprint)


def _demand_inside(name: str) -> None:
    if any(not part or part.startswith(".") for part in name.split("/")):
        raise ValueError(f"the name {name!r} leads out of the results folder")


def fingerprint_of(kind: str, recipe: dict[str, Any], parents: dict[str, Ref]) -> str:
    """Return the SHA-256 (hex) over the kind, the recipe and the parents' fingerprints, by role.

    Names stay out of it: renaming a run in the study file moves nothing but the folder's readable half.
    """
    roles = {role: ref.fingerprint for role, ref in parents.items()}
    return digest_of({"kind": kind, "recipe": recipe, "parents": roles})


def make_node(kind: str, label: str, recipe: dict[str, Any], parents: dict[str, Ref]) -> Node:
    """Build a node whose name is the readable `label` and 8 hex digits of its fingerprint."""
    fingerprint = fingerprint_of(kind, recipe, parents)
    return Node(kind, f"{label}-{fingerprint[:8]}", recipe, parents, fingerprint)
