"""What a figure shows: its marks, the rows of tables that they stand for, and the artifacts that those rows measure."""

import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.provenance.lineage import Artifact, Key, Lineage, declared
from coolbits.provenance.pairs import rows_of
from coolbits.study.recipes.results import TABLE

MARKS, MEASUREMENT = "marks.json", "measurement"
_TABLES = ("table", "analysis")
_DIGITS = 10


@dataclass(frozen=True)
class Row:
    """A row of a table: its values without nulls, and the artifacts that it was measured on and compared with."""

    values: dict[str, Any]
    sources: tuple[Key, ...]


@dataclass(frozen=True)
class Mark:
    """A place in a figure, in points from the upper left, and the rows it stands for: pairs of table and number."""

    x: float
    y: float
    size: float
    rows: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Drawn:
    """The marks of a figure of some width and height in points, and the rows that they stand for, by table."""

    width: float = 0.0
    height: float = 0.0
    marks: tuple[Mark, ...] = ()
    rows: dict[str, dict[int, Row]] = field(default_factory=dict)

    @property
    def sources(self) -> set[Key]:
        """The artifacts that the rows were measured on."""
        return {key for rows in self.rows.values() for row in rows.values() for key in row.sources}


def read_drawn(top: Artifact, lineage: Lineage) -> Drawn:
    """Return what the artifact `top` draws, nothing if it is no figure with marks.

    Raises:
        CoolbitsError: if its marks or tables are not the files that their manifests declare.
    """
    if top.manifest is None or MARKS not in top.manifest.files:
        return Drawn()
    stated = json.loads(declared(top, MARKS))
    marks = tuple(
        Mark(
            mark["x"],
            mark["y"],
            mark["size"],
            tuple((name, row) for name in mark["rows"] for row in mark["rows"][name]),
        )
        for mark in stated["marks"]
    )
    wanted: dict[str, set[int]] = defaultdict(set)
    for mark in marks:
        for name, row in mark.rows:
            wanted[name].add(row)
    tables = {name: lineage.artifacts[top.parents[name]] for name in wanted}
    rows = {name: _rows(tables[name], sorted(numbers)) for name, numbers in wanted.items()}
    return Drawn(stated["width"], stated["height"], marks, rows)


def tables_of(top: Artifact, lineage: Lineage) -> dict[str, Artifact]:
    """Return the tables that an artifact was made from, by role, those of analyses among them."""
    parents = {role: lineage.artifacts[key] for role, key in top.parents.items()}
    return {role: parent for role, parent in parents.items() if parent.kind in _TABLES}


def _rows(table: Artifact, numbers: list[int]) -> dict[int, Row]:
    read = pq.read_table(io.BytesIO(declared(table, TABLE)))
    if numbers and numbers[-1] >= len(read):
        raise CoolbitsError(f"{table.directory}: {len(read)} rows, but a figure was drawn from row {numbers[-1]}")
    found = read.take(pa.array(numbers, pa.int64())).to_pylist()
    return {number: Row(_plain(row), _sources(table, row)) for number, row in zip(numbers, found, strict=True)}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are there, as JSON has them; floats to ten digits."""
    plain = {
        name: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
        for name, value in row.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value)) and name != MEASUREMENT
    }
    return {name: value if isinstance(value, str | int | float) else str(value) for name, value in plain.items()}


def _sources(table: Artifact, row: Mapping[str, Any]) -> tuple[Key, ...]:
    """Return the artifacts behind a row, as the table's recipe has them; the table itself where it has no such rows."""
    recipes, number = rows_of(table), row.get(MEASUREMENT)
    if not isinstance(number, int) or not 0 <= number < len(recipes):
        return (table.key,)
    roles = [recipes[number].get(role) for role in ("evaluation", "base")]
    return tuple(table.parents[role] for role in roles if role in table.parents) or (table.key,)
