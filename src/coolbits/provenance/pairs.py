"""Pairs: what in one lineage answers to what in another, though names and roles may differ."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from coolbits.provenance.lineage import Artifact, Key, Lineage

Columns = dict[str, Any]
Pair = tuple[Artifact, Artifact]
# These hold digits of fingerprints: they change with any field of a recipe.
_NAMES = ("trajectory", "family", "members")
_MODEL = ("run", "seed", "source", "average", "window", "phase", "step")
_MEASURE = ("quantizer", "evaluation", "task", "metric")


def match_rows(first: Sequence[Columns], second: Sequence[Columns]) -> list[tuple[int, int]]:
    """Return the places of rows that answer to each other, in order.

    First those that are equal but for names; then, of the rest, those equal but for columns in which values gave way to
    as many others; then those equal in the words of the study. Rows that are alike are taken in order.
    """
    stable = _stable(first, second)
    tiers: list[Callable[[Columns], Hashable]] = [
        lambda row: tuple(sorted((name, str(value)) for name, value in row.items() if name not in _NAMES)),
        lambda row: tuple(str(row.get(name)) for name in stable),
        lambda row: tuple(str(row.get(name)) for name in (*_MODEL, *_MEASURE)),
    ]
    left, right = dict(enumerate(first)), dict(enumerate(second))
    pairs: list[tuple[int, int]] = []
    for key in tiers:
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for place, row in right.items():
            waiting[key(row)].append(place)
        found = [(place, waiting[key(row)].pop(0)) for place, row in left.items() if waiting.get(key(row))]
        pairs += found
        for one, two in found:
            del left[one], right[two]
    return sorted(pairs)


def _stable(first: Sequence[Columns], second: Sequence[Columns]) -> list[str]:
    """Return the columns that still tell rows apart: not those in which values gave way to as many others."""
    names = sorted({name for row in (*first, *second) for name in row} - set(_NAMES))
    found = {name: [{str(row.get(name)) for row in rows} for rows in (first, second)] for name in names}
    return [name for name, (one, two) in found.items() if one == two or len(one) != len(two)]


def pair_up(first: Lineage, one: Artifact, second: Lineage, two: Artifact) -> Iterator[Pair]:
    """Yield `one` and `two`, then what they were made from, pair by pair, each pair once."""
    seen: set[tuple[Key, Key]] = set()
    waiting = [(one.key, two.key)]
    while waiting:
        pair = waiting.pop(0)
        if pair in seen or pair[0][0] != pair[1][0]:
            continue
        seen.add(pair)
        left, right = first.artifacts[pair[0]], second.artifacts[pair[1]]
        yield left, right
        waiting += _parents(left, right)


def _parents(one: Artifact, two: Artifact) -> Iterator[tuple[Key, Key]]:
    rows = rows_of(one), rows_of(two)
    if any(rows):
        columns = [[row.get("columns", {}) for row in side] for side in rows]
        roles = [
            (rows[0][left].get(role), rows[1][right].get(role))
            for left, right in match_rows(*columns)
            for role in ("evaluation", "base")
        ]
    else:
        roles = [(role, role) for role in one.parents]
    for left, right in roles:
        if left in one.parents and right in two.parents:
            yield one.parents[left], two.parents[right]


def rows_of(artifact: Artifact) -> list[Columns]:
    """Return the rows that the recipe of a table lists; of anything else none."""
    rows = artifact.manifest.recipe.get("rows", []) if artifact.manifest else []
    return [row for row in rows if isinstance(row, dict)]
