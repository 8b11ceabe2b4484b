"""What stands of a plan: the artifacts that are there and that a run of the workflow keeps."""

from collections.abc import Collection
from functools import cache
from pathlib import Path

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import MANIFEST, read_manifest
from coolbits.artifacts.node import Node, Ref
from coolbits.artifacts.store import Store
from coolbits.stages import STAGES
from coolbits.study.plan import Plan

Key = tuple[str, str]


def key_of(node: Node | Ref) -> Key:
    """Return the kind and the name of a node."""
    return node.kind, node.name


def standing(plan: Plan, root: Path) -> frozenset[Key]:
    """Return the keys of what stands below `root`: made by its recipe and the present code, from parents that stand.

    Quick: manifests and records are read, all other files are taken to be what these say.
    """
    # What has not been made yet costs no look at code, which takes longer than the plan of a small study.
    store = cache(lambda kind: Store(root, code_slice(STAGES[kind])))
    digests: dict[Key, str] = {}
    for node in plan.nodes:
        parents = {role: digests.get(key_of(ref)) for role, ref in node.parents.items()}
        if None in parents.values() or not _complete(node, root) or not store(node.kind).seems_current(node):
            continue
        try:
            manifest = read_manifest(node.directory(root))
        except CoolbitsError:
            continue
        # A run that was stopped may have made a parent again, and not yet what hangs on it.
        if parents == {role: parent["digest"] for role, parent in manifest.parents.items()}:
            digests[key_of(node)] = manifest.digest
    return frozenset(digests)


def stands(node: Node, kept: Collection[Key]) -> bool:
    """Whether a node is among those that stand."""
    return key_of(node) in kept


def wanted_files(node: Node) -> tuple[str, ...]:
    """Name the files of an artifact that must be there; a manifest alone would hide that a picture was deleted."""
    if node.kind == "figure":
        return MANIFEST, f"{node.recipe['figure']}.svg", f"{node.recipe['figure']}.png"
    return (MANIFEST, "claims.html") if node.kind == "claims" else (MANIFEST,)


def _complete(node: Node, root: Path) -> bool:
    return all((node.directory(root) / file).is_file() for file in wanted_files(node))
