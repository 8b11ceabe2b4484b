"""Tidy tables: one row a measurement, the fields of its recipe as columns, an interval beside every estimate.

A table holds what its recipe lists and nothing else: a missing artifact, column or value is an error, never a gap.
A diverged model is a result: its row says so and has NaN where a number would be. So does the row of a model that was
kept as complete, of a trajectory that had diverged by then, as a later checkpoint behind the table says. Column
`measurement` counts the rows of the recipe from 0: of tasks, of logged steps and of other finer things there are
several a measurement. Column `measure` names the first evaluation of the table that measures what the row's does.

Beside `table.parquet` a loss table has `documents.parquet`: for each row (column `row`) the tokens, the nats and the
full-precision model's nats of every held-out document, so that a claim can pair any two rows document by document.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from coolbits.artifacts.each import make_each
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import canonical_json
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.figures.ancestry import Ancestry
from coolbits.figures.curvature_table import curvatures, landscapes, predictions
from coolbits.figures.finetuning_table import validations
from coolbits.figures.measurements import Measurement, ledgers, losses, metrics
from coolbits.figures.tasks_table import tasks
from coolbits.figures.telemetry_table import telemetry
from coolbits.figures.vision_table import vision
from coolbits.study.recipes.results import (
    DOCUMENTS,
    MODEL_COLUMNS,
    TABLE,
    TRAJECTORY_COLUMNS,
    VISION_COLUMNS,
    Row,
    Table,
)

MEASUREMENT = "measurement"
_NEVER_NULL = ("run", "model", "tokens", "source", "quantizer")


def run(job: Job, store: Store) -> int:
    """Make the tables of a job; return how many were made."""
    return make_each(job, "table", lambda node: _make(node, store))


def _make(node: Node, store: Store) -> bool:
    directories = {role: ref.directory(store.root) for role, ref in node.parents.items()}
    return store.ensure(node, lambda out: build_table(Table.read(node.recipe), directories, store.root, out))


def build_table(recipe: Table, directories: Mapping[str, Path], root: Path, out: Path) -> dict[str, Any]:
    """Write `table.parquet` (and, of losses, `documents.parquet`) to `out`; return the summary.

    Args:
        recipe: the rows wanted; their roles are keys of `directories`
        directories: where the parents lie
        root: the results folder, in which the models lie that rows were made from
        out: an empty directory

    Raises:
        CoolbitsError: if a row names a missing role, lacks a column or a value, or its artifact lacks one; or if a
            model behind it is missing, or another than it was made from.
    """
    descriptors = describe(recipe)
    ancestry = Ancestry(root)
    divergences = ancestry.divergences(directories.values())
    measured = [_measurement(row, directories, ancestry, divergences) for row in recipe.rows]
    if "evaluation" in descriptors:
        descriptors["measure"] = _measures(descriptors.evaluation, measured)
    match recipe.content:
        case "loss":
            values, documents = losses(measured, recipe)
            pq.write_table(documents, out / DOCUMENTS, compression="zstd")
        case "tasks":
            values = tasks(measured, recipe)
        case "curvature":
            values = curvatures(measured)
        case "prediction":
            values = predictions(measured)
        case "landscape":
            values = landscapes(measured)
        case "metrics":
            values = metrics(measured)
        case "ledger":
            values = ledgers(measured)
        case "telemetry":
            values = telemetry(measured)
        case "vision":
            values = vision(measured)
        case "finetuning":
            values = validations(measured)
    # A measured column (a step of the metrics) takes the place of the descriptor of the same name.
    own = descriptors.drop(columns=[name for name in descriptors if name in values])
    table = own.join(values.set_index("row"), how="inner").rename_axis(MEASUREMENT).reset_index()
    table.attrs = {"confidence": recipe.confidence, "bootstrap_samples": recipe.bootstrap_samples}
    table.to_parquet(out / TABLE, index=False)
    return {"rows": len(table)}


def describe(recipe: Table) -> pd.DataFrame:
    """Return the descriptor columns of the rows, typed, in the order of the recipe.

    Raises:
        CoolbitsError: if a row lacks a column, or a value that no row may lack.
    """
    types = TRAJECTORY_COLUMNS | ({} if recipe.content in ("metrics", "telemetry") else MODEL_COLUMNS)
    types = VISION_COLUMNS if recipe.content == "vision" else types
    for number, row in enumerate(recipe.rows):
        missing = [name for name in types if name not in row.columns]
        # Of a model that others trained the study knows no optimizer.
        required = _NEVER_NULL if row.columns.get("source") == "pretrained" else (*_NEVER_NULL, "optimizer")
        missing += [name for name in required if name in types and row.columns.get(name) is None]
        if missing:
            raise CoolbitsError(
                f"table {recipe.content}: row {number} ({row.evaluation}) has no value in {', '.join(missing)}"
            )
    names = list(dict.fromkeys(name for row in recipe.rows for name in row.columns))
    table = pd.DataFrame([row.columns for row in recipe.rows], columns=names)
    return table.astype({name: kind for name, kind in types.items() if name in table})


def _measures(evaluations: Iterable[str], measured: Sequence[Measurement]) -> list[str]:
    """Return for each row the first evaluation that takes its measure: what several take alike compares."""
    first: dict[str, str] = {}
    return [first.setdefault(item.measure, name) for name, item in zip(evaluations, measured, strict=True)]


def _measurement(
    row: Row, directories: Mapping[str, Path], ancestry: Ancestry, divergences: Mapping[str, int]
) -> Measurement:
    for role in filter(None, (row.evaluation, row.base)):
        if role not in directories:
            raise CoolbitsError(f"table: a row names the parent {role!r}; the table has {len(directories)} others")
    place, base = directories[row.evaluation], directories[row.base] if row.base else None
    own = ancestry.manifest(place)
    diverged = own if own.diverged else ancestry.manifest(base) if base and ancestry.manifest(base).diverged else None
    since = diverged.summary.get("diverged_step") if diverged else ancestry.diverged_step(place, divergences)
    known_later = diverged is None and since is not None
    fallbacks = ancestry.parent(place, "quantized").summary.get("fallbacks", 0) if "quantized" in own.parents else 0
    return Measurement(
        place=place,
        base=base,
        # What was measured before it was known is no result.
        summary={} if known_later else own.summary,
        fallbacks=int(fallbacks),
        outcome="diverged" if diverged or known_later else "complete",
        diverged_step=since,
        measure=canonical_json(own.recipe.get("measure")),
    )
