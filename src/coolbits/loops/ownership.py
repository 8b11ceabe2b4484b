"""Whose a saved state is: of which recipe and code, made from which parents. Another's must not be gone on from."""

import json
from pathlib import Path

from coolbits.artifacts.files import write_json
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store

_OWNER = "owner.json"
Owner = dict[str, str]


def owner_of(node: Node, store: Store, recipe: str) -> Owner:
    """Return the owner of the states of a node: the digest of its recipe, the code, the parents as they are now."""
    parents = {role: store.manifest(node, role).digest for role in node.parents}
    return {"recipe": recipe, "code": store.code.digest} | parents


def mark(state: Path, owner: Owner) -> None:
    """Write into the directory of a state whose it is."""
    write_json(state / _OWNER, owner)


def belongs(state: Path, owner: Owner) -> bool:
    """Whether the directory holds a state of just this owner."""
    try:
        return bool(json.loads((state / _OWNER).read_text()) == owner)
    except (OSError, json.JSONDecodeError):
        return False
