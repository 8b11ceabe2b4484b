"""The quantization stage: nodes of one checkpoint are made together, so that they share loading and calibration."""

from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import Manifest
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.loops.allocator import keep_little_freed_memory
from coolbits.models.devices import choose_device
from coolbits.models.files import load_model
from coolbits.ptq.checkpoint import Quantization, Request, build_quantized, quantize_in_turn, write_results
from coolbits.study.recipes.ptq import Quantized


def run(job: Job, store: Store) -> int:
    """Make the quantized models of the job that are missing; return how many were made.

    Each is stored as soon as it is done, those of one pass together: a job that is killed loses the pass at work.
    A checkpoint that diverged gives an artifact that says so and has no weights.

    Raises:
        CoolbitsError: as `quantize_in_turn`.
    """
    device = choose_device(job.execution.get("device", "auto"))
    if device == "cpu":
        keep_little_freed_memory()
    made = 0
    for _, group in groupby(sorted(job.nodes, key=_model), key=_model):
        made += _run_together(list(group), store, device)
    return made


def _model(node: Node) -> str:
    return f"{node.parents['model'].kind}/{node.parents['model'].name}"


def _run_together(nodes: list[Node], store: Store, device: str) -> int:
    """Make the nodes of one checkpoint."""
    parent = store.manifest(nodes[0], "model")
    if parent.diverged:
        return sum(store.ensure(node, partial(_build_diverged, parent)) for node in nodes)
    model = nodes[0].parent_directory(store.root, "model")
    missing = [node for node in nodes if not store.is_current(node)]
    made = sum(store.ensure(node, partial(_build, node, store, device)) for node in nodes if node not in missing)
    for node in missing:
        store.demand_parents(node)

    def keep(index: int, done: Quantization) -> None:
        nonlocal made
        made += store.ensure(missing[index], partial(write_results, _recipe(missing[index]), done, model))

    if missing:
        requests = [Request(_recipe(node), _calibration(node, store)) for node in missing]
        quantize_in_turn(requests, load_model(model, dtype=None), keep, str(model), torch.device(device))
    return made


def _recipe(node: Node) -> Quantized:
    return Quantized.read(node.recipe)


def _calibration(node: Node, store: Store) -> Path | None:
    return node.parent_directory(store.root, "calibration") if "calibration" in node.parents else None


def _build(node: Node, store: Store, device: str, out: Path) -> dict[str, Any]:
    """Make an artifact by itself: one that was damaged since it was found whole."""
    model = node.parent_directory(store.root, "model")
    return build_quantized(_recipe(node), model, _calibration(node, store), out, device)


def _build_diverged(parent: Manifest, _out: Path) -> dict[str, Any]:
    return {"outcome": "diverged", "diverged_step": parent.summary["diverged_step"]}
