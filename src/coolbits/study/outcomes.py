"""From measurements and analyses to the study's own results: tables, figures, claims."""

from collections.abc import Iterable
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node, Ref, fingerprint_of
from coolbits.claims.names import CLAIMS, OF_ANALYSES
from coolbits.figures.names import BESIDES, FIGURES, OPTIONS
from coolbits.study.analyses import ANALYSES, analyses
from coolbits.study.finetuning import Finetunings
from coolbits.study.measurements import Measured, Measurement, full_precision
from coolbits.study.mixtures import check_mixtures
from coolbits.study.recipes.results import Claims, Content, Figure, Row, Table
from coolbits.study.schema import Study
from coolbits.study.track import Track
from coolbits.study.units import si
from coolbits.study.vision import Vision

# Where a table that a study lacks comes from, if not from an evaluation that measures what it is named after.
_REMEDIES = {
    "metrics": "add to `runs`",
    "telemetry": "give a run `telemetry`",
    "vision": "add to `vision`",
    "finetuning": "add to `finetuning`",
    "ledger": "add to `quantizers`, and to `evaluations` one that measures what they make",
}


def outcomes(
    study: Study, tracks: list[Track], measured: Measured, tokens: int, vision: Vision, tuned: Finetunings
) -> list[Node]:
    """Return the nodes of analyses, and of tables, figures and claims, which are named after the study.

    Raises:
        CoolbitsError: if a figure or a claim does not exist, needs a table that this study cannot fill, or would take
            runs of several settings for one.
    """
    tables = _tables(study, tracks, measured, vision, tuned)
    refs = {node.name.rpartition("/")[2]: node.ref for node in tables}
    analysed = analyses(study, tracks)
    drawable = refs | {kind: node.ref for kind, node in analysed.items()}
    scale = _scale(study, tracks, tokens) if tracks else study.study
    own = {"vision": vision.scale, "finetuning": tuned.scale, "memory": f"{study.study}: nothing is trained"}
    scales = {name: own.get(_needed(study, name)[0], scale) for name in study.figures}
    figures = [_figure(study, name, drawable, scales[name]) for name in study.figures]
    wanted = tuple(CLAIMS) if study.claims == "all" else study.claims
    for name in wanted:
        if name not in CLAIMS:
            raise CoolbitsError(f"claims: no claim {name!r}; there are {', '.join(CLAIMS)}")
    check_mixtures(study, tracks, measured)
    claims = []
    if wanted:
        recipe = Claims(claims=wanted, scale=_scale_of_claims(study, scale, tracks, vision, tuned)).identity()
        judged = {kind: node.ref for kind, node in analysed.items() if set(OF_ANALYSES[kind]) & set(wanted)}
        claims = [_named(study, "claims", "claims", recipe, refs | judged)]
    return [*analysed.values(), *tables, *figures, *claims]


def _needed(study: Study, name: str) -> tuple[str, ...]:
    """Return the tables that a figure of the study is drawn from."""
    figure = study.figures[name].figure
    if figure not in FIGURES:
        raise CoolbitsError(f"figures.{name}.figure: no figure {figure!r}; there are {', '.join(FIGURES)}")
    return FIGURES[figure]


def _figure(study: Study, name: str, tables: dict[str, Ref], scale: str) -> Node:
    choice, needed = study.figures[name], _needed(study, name)
    _check_options(study, name)
    for table in needed:
        if table not in tables and table in ANALYSES:
            raise CoolbitsError(f"figures.{name}: needs an analysis of kind {table!r}; add one to `analyses`")
        if table not in tables:
            remedy = _REMEDIES.get(table, f"add to `evaluations` one with measure: {{kind: {table}}}")
            raise CoolbitsError(f"figures.{name}: needs the table {table!r}; {remedy}")
    recipe = Figure(figure=choice.figure, options=choice.options, scale=scale).identity()
    shown = (*needed, *(table for table in BESIDES.get(choice.figure, ()) if table in tables))
    return _named(study, "figure", name, recipe, {table: tables[table] for table in shown})


def _check_options(study: Study, name: str) -> None:
    """Refuse options that the figure has not, and names of quantizers or runs that the study has not."""
    choice, known = study.figures[name], {"quantizers": [*study.quantizers]}
    known["runs"] = known["run"] = [*study.runs, *study.finetuning, *study.pretrained]
    for key, value in choice.options.items():
        allowed = OPTIONS[choice.figure]
        if key not in allowed:
            takes = ", ".join(allowed) or "none"
            raise CoolbitsError(f"figures.{name}.options: no option {key!r}; {choice.figure} takes {takes}")
        for item in (value if isinstance(value, list) else [value]) if key in known else ():
            if item not in known[key]:
                there = ", ".join(known[key]) or "none"
                raise CoolbitsError(f"figures.{name}.options.{key}: no {item!r}; there are {there}")


def _tables(study: Study, tracks: list[Track], measured: Measured, vision: Vision, tuned: Finetunings) -> list[Node]:
    of_measure: dict[Content, list[Measurement]] = {}
    for row in measured.rows:
        of_measure.setdefault(row.measure.kind, []).append(row)
    # Several runs may share a trajectory; the one that follows it furthest has all of its metrics.
    longest = {track.name: track for track in sorted(tracks, key=lambda track: track.steps[-1])}
    ends = [(track.checkpoint(track.steps[-1]), None, track.row(track.steps[-1])) for track in longest.values()]
    watched = [track for track in longest.values() if track.recipe.telemetry]
    ledgers = {row.quantized.name: (row.quantized, row.columns) for row in measured.rows if row.quantized}
    tables = []
    if ends:
        tables.append(_table(study, "metrics", ends))
    if vision.classifiers:
        tables.append(_table(study, "vision", [(node, None, columns) for node, columns in vision.classifiers]))
    if watched:
        tables.append(_table(study, "telemetry", map(_watched, watched)))
    if tuned.points:
        rows = [(point.node, None, full_precision(point)) for point in tuned.points]
        tables.append(_table(study, "finetuning", rows))
    tables += [_table(study, kind, map(_sources, rows)) for kind, rows in of_measure.items()]
    if ledgers:
        tables.append(_table(study, "ledger", [(node, None, columns) for node, columns in ledgers.values()]))
    return tables


def _watched(track: Track) -> tuple[Node, None, dict[str, Any]]:
    """Return what the telemetry of a trajectory is read from; its rows have steps of their own."""
    return track.checkpoint(track.steps[-1]), None, track.columns | {"trajectory": track.name, "family": track.family}


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


def _scale_of_claims(study: Study, scale: str, tracks: list[Track], vision: Vision, tuned: Finetunings) -> str:
    """Return the scales of all that is trained: of pretraining, of image classifiers, of fine-tunings."""
    own = f"{study.study}: "
    trained = ((tracks, scale), (vision.classifiers, vision.scale), (tuned.points, tuned.scale))
    scales = [found.removeprefix(own) for models, found in trained if models]
    return own + "; ".join(scales) if scales else scale


def _scale(study: Study, tracks: list[Track], tokens: int) -> str:
    sizes = sorted({int(track.columns["parameters"]) for track in tracks})
    seeds = len({track.recipe.seed for track in tracks})
    size = si(sizes[0]) if len(sizes) == 1 else f"{si(sizes[0])} to {si(sizes[-1])}"
    return f"{study.study}: {size} parameters, {si(tokens)} tokens, {seeds} seed{'s' if seeds > 1 else ''}"
