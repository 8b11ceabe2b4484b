"""Outcomes: what diverged or fell back behind a result, and tables that do not say so where it did."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.manifest import Manifest
from coolbits.provenance.findings import Finding
from coolbits.provenance.lineage import Artifact, Lineage
from coolbits.provenance.trained import TRAININGS, finished
from coolbits.study.recipes.results import TABLE


def check_outcomes(lineage: Lineage) -> Iterator[Finding]:
    """Yield what diverged or fell back, for information, and each table that has it otherwise than its artifacts."""
    for kind in TRAININGS:
        if steps := _divergences(lineage, kind):
            low, high = min(steps.values()), max(steps.values())
            said = f"diverged, at step {low:,}" if low == high else f"diverged, at steps {low:,} to {high:,}"
            yield Finding("outcome", tuple(steps), said, information=True)
    fallen = {artifact.label: count for artifact in lineage if (count := _fallbacks(artifact.manifest))}
    if fallen:
        said = f"{sum(fallen.values()):,} modules fell back to another method than the one asked for"
        yield Finding("outcome", tuple(fallen), said, information=True)
    for artifact in lineage.of_kind("table"):
        yield from _hidden(artifact, lineage)


def _divergences(lineage: Lineage, kind: str) -> dict[str, int]:
    """Return the steps at which trainings of a kind diverged, by label: of checkpoints that of their trajectory."""
    steps: dict[str, int] = {}
    for artifact in finished(lineage, kind):
        if artifact.manifest and artifact.manifest.diverged:
            label = artifact.label.rpartition("/")[0] if kind == "checkpoint" else artifact.label
            steps[label] = min(artifact.manifest.summary.get("diverged_step", 0), steps.get(label, 1 << 62))
    return steps


def _fallbacks(manifest: Manifest | None) -> int:
    return int(manifest.summary.get("fallbacks") or 0) if manifest and manifest.kind == "quantized" else 0


def _hidden(table: Artifact, lineage: Lineage) -> Iterator[Finding]:
    rows = [(_parent(table, row.get("evaluation"), lineage), row.get("base")) for row in _rows(table)]
    lost = [_diverged(made) or _diverged(_parent(table, base, lineage)) for made, base in rows]
    found = _content(table)
    if found is None:
        return  # that it is not what was written is said where its bytes are checked
    marked = found.get("outcome", []).count("diverged")
    if marked < sum(lost):
        said = f"{sum(lost):,} of its rows are of diverged models, but {marked:,} say so"
        yield Finding("hidden", (table.label,), said)
    shown = [count or 0 for count in found.get("fallbacks", [])]
    if len(shown) == len(rows):
        models = [_quantized(made, lineage) for made, _ in rows]
        behind = [0 if gone else _fallbacks(model) for model, gone in zip(models, lost, strict=True)]
        if shown != behind:
            said = f"its rows count {sum(shown):,} fallbacks, the models behind them {sum(behind):,}"
            yield Finding("hidden", (table.label,), said)


def _content(table: Artifact) -> dict[str, list[Any]] | None:
    """Return the columns of a table if its bytes are those that its manifest declares, else None."""
    path, files = table.directory / TABLE, table.manifest.files if table.manifest else {}
    declared = files.get(TABLE) if isinstance(files, dict) else None
    try:
        if not isinstance(declared, dict) or file_digest(path) != declared.get("sha256"):
            return None
        columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None
    return columns


def _rows(table: Artifact) -> list[dict[str, Any]]:
    rows = table.manifest.recipe.get("rows") if table.manifest else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _parent(table: Artifact, role: Any, lineage: Lineage) -> Artifact | None:
    key = table.parents.get(role)
    return lineage.artifacts[key] if key else None


def _diverged(artifact: Artifact | None) -> bool:
    return artifact is not None and artifact.manifest is not None and artifact.manifest.diverged


def _quantized(evaluation: Artifact | None, lineage: Lineage) -> Manifest | None:
    key = evaluation.parents.get("quantized") if evaluation else None
    return lineage.artifacts[key].manifest if key else None
