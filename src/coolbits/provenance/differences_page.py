"""The page that tells two results apart, as plain text."""

from collections.abc import Iterator, Sequence

from coolbits.provenance.difference import Change, Difference
from coolbits.provenance.layout import paragraph, table
from coolbits.provenance.moves import Moves

_SECTIONS = {
    "recipes": "RECIPE FIELDS",
    "inputs": "INPUTS",
    "code": "CODE",
    "environment": "ENVIRONMENT",
    "unexplained": "OTHER BYTES FROM EQUAL RECIPES AND INPUTS",
    "summary": "SUMMARY",
}


def difference_page(difference: Difference) -> str:
    """Return the difference as text."""
    return "\n".join(_lines(difference))


def _lines(difference: Difference) -> Iterator[str]:
    yield f"before  {difference.first}"
    yield f"after   {difference.second}"
    sections = {title: getattr(difference, name) for name, title in _SECTIONS.items()}
    changed = any(sections.values()) or any(difference.alone.values())
    if difference.identical:
        yield "equal in content" + (": what differs is only how they came about" if changed else ", and made alike")
    for title, changes in sections.items():
        if changes:
            yield from ("", title, _changes(changes))
    alone = [f"{kind} {before:,} before, {after:,} after" for kind, (before, after) in difference.alone.items()]
    if alone:
        yield from ("", "ARTIFACTS WITHOUT A COUNTERPART", *paragraph("; ".join(alone)))
    for moves in difference.tables:
        yield from ("", f"NUMBERS: {moves.table}")
        yield from _moves(moves)


def _changes(changes: Sequence[Change]) -> str:
    rows = [(change.what, change.before, change.after, _counted(change.kinds)) for change in changes]
    return table(("what", "before", "after", "in"), rows)


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())


def _moves(moves: Moves) -> Iterator[str]:
    counts = f"{moves.rows:,} rows in both"
    for count, which in ((moves.only_first, "before"), (moves.only_second, "after")):
        counts += f"; {count:,} only {which}" if count else ""
    counts += f"; {moves.outcomes:,} have another outcome" if moves.outcomes else ""
    yield from paragraph(counts if moves.columns else f"{counts}; no number moved")
    if moves.columns:
        rows = [
            (move.column, f"{move.moved:,}", *_moved(*move.largest), *_ratio(*move.largest_relative))
            for move in moves.columns
        ]
        yield table(("column", "moved", "most", "where", "most by ratio", "where"), rows)


def _moved(where: str, before: float, after: float) -> tuple[str, str]:
    return f"{before:.5g} to {after:.5g}", where


def _ratio(where: str, before: float, after: float) -> tuple[str, str]:
    return (f"{after / before - 1:+.2%}" if before else "from 0"), where
