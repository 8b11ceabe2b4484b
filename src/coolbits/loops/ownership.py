"""Whose a saved state is: of which recipe and code, made from which parents; and whether it is still what was saved.

Another's must not be gone on from, nor one that was damaged since.
"""

import json
from pathlib import Path
from typing import Any

from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store

_OWNER = "owner.json"
Owner = dict[str, str]


def owner_of(node: Node, store: Store, recipe: str) -> Owner:
    """Return the owner of the states of a node: the digest of its recipe, the code, the parents as they are now."""
    parents = {role: store.manifest(node, role).digest for role in node.parents}
    return {"recipe": recipe, "code": store.code.digest} | parents


def mark(state: Path, owner: Owner) -> None:
    """Write into the directory of a state, as its last file, whose it is, and the digests of the others."""
    write_json(state / _OWNER, {"owner": owner, "files": _digests(state)})


def belongs(state: Path, owner: Owner) -> bool:
    """Whether the directory holds a state of just this owner."""
    return _read(state).get("owner") == owner


def is_whole(state: Path) -> bool:
    """Whether the state's files are to the byte those that were saved."""
    return _read(state).get("files") == _digests(state)


def _digests(state: Path) -> dict[str, str]:
    places = (path for path in sorted(state.rglob("*")) if path.is_file() and path.name != _OWNER)
    return {path.relative_to(state).as_posix(): file_digest(path) for path in places}


def _read(state: Path) -> dict[str, Any]:
    try:
        values = json.loads((state / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
