"""Differences between two results: what changed behind them, each change said once, and how the numbers moved."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from coolbits.artifacts.manifest import Manifest
from coolbits.provenance.lineage import Artifact, Lineage, declared
from coolbits.provenance.moves import Moves, compare_tables
from coolbits.provenance.pairs import Columns, Pair, match_rows, pair_up, rows_of
from coolbits.provenance.recipes import flatten, values
from coolbits.provenance.records import Environment
from coolbits.study.recipes.results import TABLE

Observation = tuple[str, str, Any, Any]
_ROWS = "rows"


@dataclass(frozen=True)
class Change:
    """Something that changed: what, from what to what, and in how many pairs of artifacts of which kinds."""

    what: str
    before: str
    after: str
    kinds: dict[str, int]


@dataclass(frozen=True)
class Difference:
    """All that differs between two results.

    `unexplained` has, by kind, the pairs of equal recipe and equal inputs whose files differ all the same.
    """

    first: str
    second: str
    identical: bool
    pairs: int
    alone: dict[str, tuple[int, int]]
    recipes: list[Change]
    inputs: list[Change]
    code: list[Change]
    environment: list[Change]
    unexplained: list[Change]
    summary: list[Change]
    tables: list[Moves]

    def to_json(self) -> dict[str, Any]:
        """Return the difference as plain JSON values."""
        return asdict(self)


def compare(first: Lineage, one: Artifact, second: Lineage, two: Artifact) -> Difference:
    """Compare artifact `one`, of lineage `first`, with `two`, of lineage `second`, and all that they were made from.

    Raises:
        CoolbitsError: if a table is not the file that its manifest declares.
    """
    pairs = list(pair_up(first, one, second, two))
    return Difference(
        first=str(one.directory),
        second=str(two.directory),
        identical=all(before.digest == after.digest for before, after in pairs),
        pairs=len(pairs),
        alone=_alone(first, second, pairs),
        recipes=_told(_recipe_changes(pairs)),
        inputs=_told(_input_changes(pairs)),
        code=_told(_code_changes(pairs)),
        environment=_told(_environment_changes(pairs)),
        unexplained=_told(_unexplained(pairs)),
        summary=_told(_summary_changes(one, two)),
        tables=list(_moves(pairs)),
    )


def _told(observations: Iterable[Observation]) -> list[Change]:
    """Join observations (kind, what, before, after) of the same thing."""
    before: dict[str, list[Any]] = defaultdict(list)
    after: dict[str, list[Any]] = defaultdict(list)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, what, one, two in observations:
        before[what].append(one)
        after[what].append(two)
        kinds[what][kind] += 1
    return [Change(what, values(before[what]), values(after[what]), dict(counts)) for what, counts in kinds.items()]


def _alone(first: Lineage, second: Lineage, pairs: list[Pair]) -> dict[str, tuple[int, int]]:
    """Count by kind the artifacts that answer to none in the other lineage."""
    paired = {one.key for one, _ in pairs}, {two.key for _, two in pairs}
    counts = [
        Counter(artifact.kind for artifact in lineage if artifact.key not in found)
        for lineage, found in zip((first, second), paired, strict=True)
    ]
    return {kind: (counts[0][kind], counts[1][kind]) for kind in dict.fromkeys((*counts[0], *counts[1]))}


def _fields(before: Columns, after: Columns) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys((*before, *after)):
        one, two = before.get(name, "none"), after.get(name, "none")
        if one != two or type(one) is not type(two):
            yield name, one, two


def _recipe_changes(pairs: list[Pair]) -> Iterator[Observation]:
    for one, two in pairs:
        for name, before, after in _fields(_recipe(one), _recipe(two)):
            yield one.kind, f"{one.kind} {name}", before, after


def _recipe(artifact: Artifact) -> Columns:
    recipe = artifact.manifest.recipe if artifact.manifest else {}
    return flatten({name: value for name, value in recipe.items() if name != _ROWS})


def _input_changes(pairs: list[Pair]) -> Iterator[Observation]:
    for one, two in pairs:
        before, after = rows_of(one), rows_of(two)
        if before or after:
            matched = len(match_rows(*([row.get("columns", {}) for row in rows] for rows in (before, after))))
            if not len(before) == len(after) == matched:
                what = f"{one.label}: rows without a counterpart"
                yield one.kind, what, len(before) - matched, len(after) - matched
        else:
            for role in one.parents.keys() ^ two.parents.keys():
                given = ["/".join(side.parents.get(role, ("none",))) for side in (one, two)]
                yield one.kind, f"{one.kind} input {role}", given[0], given[1]


def _code_changes(pairs: list[Pair]) -> Iterator[Observation]:
    for one, two in pairs:
        if one.record and two.record and one.record.code.digest != two.record.code.digest:
            modules = one.record.code.modules, two.record.code.modules
            for name, before, after in _fields(*modules):
                yield one.kind, name, before[:8], after[:8]


def _environment_changes(pairs: list[Pair]) -> Iterator[Observation]:
    for one, two in pairs:
        if one.record and two.record and one.record.environment != two.record.environment:
            for name, before, after in _fields(_entries(one.record.environment), _entries(two.record.environment)):
                yield one.kind, name, before, after


def _entries(made: Environment) -> Columns:
    commit = "unknown" if made.git is None else made.git.commit + (" with changes" if made.git.dirty else "")
    own = {"commit": commit, "Python": made.python, "lock file": made.lock or "none", "device": made.computer}
    return {**own, "threads": made.threads or "any", **made.packages}


def _unexplained(pairs: list[Pair]) -> Iterator[Observation]:
    for one, two in pairs:
        before, after = one.manifest, two.manifest
        if before and after and before.fingerprint == after.fingerprint and _inputs(before) == _inputs(after):
            for name, _, _ in _fields(before.files, after.files):
                yield one.kind, f"{one.kind} {name}", one.label, two.label


def _inputs(manifest: Manifest) -> dict[str, str]:
    return {role: parent["digest"] for role, parent in manifest.parents.items()}


def _summary_changes(one: Artifact, two: Artifact) -> Iterator[Observation]:
    if one.manifest and two.manifest:
        for name, before, after in _fields(flatten(one.manifest.summary), flatten(two.manifest.summary)):
            if name != "lineage":
                yield one.kind, name, before, after


def _moves(pairs: list[Pair]) -> Iterator[Moves]:
    for one, two in pairs:
        if all(side.manifest and side.kind == "table" and TABLE in side.manifest.files for side in (one, two)):
            for side in (one, two):
                declared(side, TABLE)
            described = {name for side in (one, two) for row in rows_of(side) for name in row.get("columns", {})}
            yield compare_tables(one.label, one.directory, two.directory, described)
