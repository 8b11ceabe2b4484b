"""From measurements to the study's own results: tables, figures, claims."""

from collections.abc import Iterable
from typing import Any, Literal

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node, Ref, fingerprint_of
from coolbits.claims.names import CLAIMS
from coolbits.figures.names import FIGURES
from coolbits.study.measurements import Measured, Measurement
from coolbits.study.recipes.results import Claims, Figure, Row, Table
from coolbits.study.schema import Study
from coolbits.study.track import Track
from coolbits.study.units import si

Content = Literal["loss", "tasks", "metrics", "ledger"]


def outcomes(study: Study, tracks: list[Track], measured: Measured, tokens: int) -> list[Node]:
    """Return the nodes of tables, figures and claims, each named after the study.

    Raises:
        CoolbitsError: if a figure or a claim does not exist, or needs a table that this study cannot fill.
    """
    tables = _tables(study, tracks, measured)
    refs = {node.name.rpartition("/")[2]: node.ref for node in tables}
    scale = _scale(study, tracks, tokens)
    figures = [_figure(study, name, refs, scale) for name in study.figures]
    wanted = tuple(CLAIMS) if study.claims == "all" else study.claims
    for name in wanted:
        if name not in CLAIMS:
            raise CoolbitsError(f"claims: no claim {name!r}; there are {', '.join(CLAIMS)}")
    claims = []
    if wanted:
        recipe = Claims(claims=wanted, scale=scale).identity()
        claims = [_named(study, "claims", "claims", recipe, refs)]
    return [*tables, *figures, *claims]


def _figure(study: Study, name: str, tables: dict[str, Ref], scale: str) -> Node:
    choice = study.figures[name]
    if choice.figure not in FIGURES:
        raise CoolbitsError(f"figures.{name}.figure: no figure {choice.figure!r}; there are {', '.join(FIGURES)}")
    needed = FIGURES[choice.figure]
    for table in needed:
        if table not in tables:
            raise CoolbitsError(f"figures.{name}: needs the table {table!r}, for which the study evaluates nothing")
    recipe = Figure(figure=choice.figure, options=choice.options, scale=scale).identity()
    return _named(study, "figure", name, recipe, {table: tables[table] for table in needed})


def _tables(study: Study, tracks: list[Track], measured: Measured) -> list[Node]:
    losses = [row for row in measured.rows if row.measure.kind == "loss"]
    tasks = [row for row in measured.rows if row.measure.kind == "tasks"]
    ends = {track.name: (track.checkpoint(track.steps[-1]), track.row(track.steps[-1])) for track in tracks}
    ledgers = {row.quantized.name: (row.quantized, row.columns) for row in measured.rows if row.quantized}
    tables = [_table(study, "metrics", [(node, None, columns) for node, columns in ends.values()])]
    if losses:
        tables.append(_table(study, "loss", map(_sources, losses)))
    if tasks:
        tables.append(_table(study, "tasks", map(_sources, tasks)))
    if ledgers:
        tables.append(_table(study, "ledger", [(node, None, columns) for node, columns in ledgers.values()]))
    return tables


def _sources(row: Measurement) -> tuple[Node, Node | None, dict[str, Any]]:
    return row.evaluation, row.base, row.columns | {"evaluation": row.name}


def _table(study: Study, content: Content, rows: Iterable[tuple[Node, Node | None, dict[str, Any]]]) -> Node:
    roles: dict[str, str] = {}
    parents: dict[str, Ref] = {}

    def role_of(node: Node) -> str:
        role = roles.setdefault(node.name, f"{node.kind}.{len(roles)}")
        parents[role] = node.ref
        return role

    described = tuple(
        Row(evaluation=role_of(node), base=role_of(base) if base else None, columns=columns)
        for node, base, columns in rows
    )
    recipe = Table(content=content, rows=described, bootstrap_samples=study.bootstrap_samples)
    return _named(study, "table", content, recipe.identity(), parents)


def _named(study: Study, kind: str, name: str, recipe: dict[str, Any], parents: dict[str, Ref]) -> Node:
    """A study's own results keep their path when the study changes: figures are asked for by name."""
    return Node(kind, f"{study.study}/{name}", recipe, parents, fingerprint_of(kind, recipe, parents))


def _scale(study: Study, tracks: list[Track], tokens: int) -> str:
    sizes = sorted({int(track.columns["parameters"]) for track in tracks})
    seeds = len({track.recipe.seed for track in tracks})
    size = si(sizes[0]) if len(sizes) == 1 else f"{si(sizes[0])} to {si(sizes[-1])}"
    return f"{study.study}: {size} parameters, {si(tokens)} tokens, {seeds} seed{'s' if seeds > 1 else ''}"
