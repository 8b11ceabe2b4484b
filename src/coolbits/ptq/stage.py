"""The quantization stage: nodes of one checkpoint are made together, so that they share loading and calibration."""

from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import Manifest
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Build, Store
from coolbits.loops.allocator import keep_little_freed_memory
from coolbits.loops.ownership import Owner, owner_of
from coolbits.models.devices import choose_device
from coolbits.models.files import load_model
from coolbits.ptq.checkpoint import Quantization, Request, build_quantized, quantize_in_turn, write_results
from coolbits.ptq.unfinished import Place, circumstances
from coolbits.study.execution import Execution
from coolbits.study.recipes.ptq import Quantized


def run(job: Job, store: Store) -> int:
    """Make the quantized models of the job that are missing; return how many were made.

    Each is stored as soon as it is done, those of one pass together. The next job goes on from the finished blocks of a
    pass that was killed, which costs the block at work, and at most `state_every_seconds` before it.
    A checkpoint that diverged gives an artifact that says so and has no weights.

    Raises:
        CoolbitsError: as `quantize_in_turn`.
    """
    execution = Execution.read(job.execution)
    device = choose_device(execution.device)
    if device == "cpu":
        keep_little_freed_memory()
    made = 0
    for _, group in groupby(sorted(job.nodes, key=_model), key=_model):
        made += _run_together(list(group), store, device, execution.state_every_seconds)
    return made


def _model(node: Node) -> str:
    return f"{node.parents['model'].kind}/{node.parents['model'].name}"


def _run_together(nodes: list[Node], store: Store, device: str, every_seconds: float) -> int:
    """Make the nodes of one checkpoint."""
    parent = store.manifest(nodes[0], "model")
    if parent.diverged:
        return sum(store.ensure(node, partial(_build_diverged, parent)) for node in nodes)
    model = nodes[0].parent_directory(store.root, "model")
    places = {node.name: _place(node, store, device, every_seconds) for node in nodes}
    missing = [node for node in nodes if not store.is_current(node)]
    made = 0

    def make(node: Node, build: Build) -> None:
        nonlocal made
        made += store.ensure(node, build)
        places[node.name].clear()

    for node in nodes:
        if node not in missing:
            make(node, partial(_build, node, store, device))
    for node in missing:
        store.demand_parents(node)

    def finished(index: int, done: Quantization) -> None:
        make(missing[index], partial(write_results, _recipe(missing[index]), done, model))

    if missing:
        requests = [Request(_recipe(node), _calibration(node, store), places[node.name]) for node in missing]
        quantize_in_turn(requests, load_model(model, dtype=None), finished, str(model), torch.device(device))
    return made


def _place(node: Node, store: Store, device: str, every_seconds: float) -> Place:
    @cache
    def owner() -> Owner:
        return owner_of(node, store, node.fingerprint) | circumstances(torch.device(device))

    return Place(store.work_directory(node), owner, every_seconds)


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
