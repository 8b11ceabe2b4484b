"""The stage of analyses: `table.parquet` of each."""

from pathlib import Path
from typing import Any

from coolbits.analysis.memory import build_memory
from coolbits.analysis.theory import build_theory
from coolbits.artifacts.each import make_each
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.study.recipes.analysis import Analysis, Memory


def run(job: Job, store: Store) -> int:
    """Make the analyses of a job; return how many were made."""
    return make_each(job, "analysis", lambda node: _make(node, store))


def _make(node: Node, store: Store) -> bool:
    parents = {role: ref.directory(store.root) for role, ref in node.parents.items()}
    return store.ensure(node, lambda out: build_analysis(Analysis.read(node.recipe), parents, out))


def build_analysis(recipe: Analysis, parents: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write the table of an analysis to `out`; return its summary."""
    if isinstance(recipe.analysis, Memory):
        return build_memory(recipe.analysis, out)
    return build_theory(recipe.analysis, parents, out)
