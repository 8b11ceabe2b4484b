"""The quantization stage: nodes of one checkpoint are made together, so that they share loading and calibration."""

from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import Manifest
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.loops.allocator import keep_little_freed_memory
from coolbits.models.devices import choose_device
from coolbits.ptq.checkpoint import Quantization, Request, quantize_checkpoint, write_results
from coolbits.study.recipes.ptq import Quantized


def run(job: Job, store: Store) -> int:
    """Make the quantized models of the job that are missing; return how many were made.

    A checkpoint that diverged gives an artifact that says so and has no weights.

    Raises:
        CoolbitsError: as `quantize_checkpoint`.
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
    for node in missing:
        store.demand_parents(node)
    made = quantize_checkpoint([_request(node, store) for node in missing], model, device) if missing else []
    results = dict(zip((node.name for node in missing), made, strict=True))
    return sum(store.ensure(node, partial(_build, node, results, model)) for node in nodes)


def _request(node: Node, store: Store) -> Request:
    calibration = node.parent_directory(store.root, "calibration") if "calibration" in node.parents else None
    return Request(Quantized.read(node.recipe), calibration)


def _build(node: Node, results: dict[str, Quantization], model: Path, out: Path) -> dict[str, Any]:
    return write_results(Quantized.read(node.recipe), results[node.name], model, out)


def _build_diverged(parent: Manifest, _out: Path) -> dict[str, Any]:
    return {"outcome": "diverged", "diverged_step": parent.summary["diverged_step"]}
