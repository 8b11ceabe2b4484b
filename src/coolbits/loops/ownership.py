"""Whose a saved state is: of which recipe and code, made from which parents; and whether it is still what was saved.

Another's must not be gone on from, nor one that was damaged since. Another processor's may be, and the log says so:
what comes of it can differ in its last bits from what either of the two would make alone.
"""

import json
import logging
from pathlib import Path
from typing import Any

import torch

from coolbits.artifacts.environment import cpu_name
from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store

_LOG = logging.getLogger(__name__)
_OWNER = "owner.json"
Owner = dict[str, str]


def owner_of(node: Node, store: Store, recipe: str) -> Owner:
    """Return the owner of the states of a node: the digest of its recipe, the code, the parents as they are now."""
    parents = {role: store.manifest(node, role).digest for role in node.parents}
    return {"recipe": recipe, "code": store.code.digest} | parents


def mark(state: Path, owner: Owner) -> None:
    """Write into the directory of a state, as its last file, whose it is, where it was saved, the others' digests."""
    write_json(state / _OWNER, {"owner": owner, "processor": _processor(), "files": _digests(state)})


def usable(state: Path, owner: Owner) -> bool:
    """Whether the directory holds a state of just this owner, and a whole one; if so note where it was saved."""
    if not (belongs(state, owner) and is_whole(state)):
        return False
    note_processor(state)
    return True


def belongs(state: Path, owner: Owner) -> bool:
    """Whether the directory holds a state of just this owner."""
    return _read(state).get("owner") == owner


def is_whole(state: Path) -> bool:
    """Whether the state's files are to the byte those that were saved."""
    return _read(state).get("files") == _digests(state)


def note_processor(state: Path) -> None:
    """Say in the log if the state was saved on another processor, with other threads or by another PyTorch."""
    saved, here = _read(state).get("processor"), _processor()
    if saved != here:
        _LOG.warning("%s: saved on %s; here, on %s, last bits may come out otherwise", state, saved, here)


def _processor() -> str:
    """Name what computes here: where that is the same, so are results."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        threads = torch.get_num_threads()
        device = f"{cpu_name()}, {threads} thread{'s' * (threads > 1)}"
    return f"{device}, PyTorch {torch.__version__}"


def _digests(state: Path) -> dict[str, str]:
    places = (path for path in sorted(state.rglob("*")) if path.is_file() and path.name != _OWNER)
    return {path.relative_to(state).as_posix(): file_digest(path) for path in places}


def _read(state: Path) -> dict[str, Any]:
    try:
        values = json.loads((state / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
