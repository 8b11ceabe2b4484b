"""Plain text for people: paragraphs and tables of a fixed width."""

from collections.abc import Iterable, Sequence
from io import StringIO
from textwrap import indent, wrap

from rich.console import Console
from rich.table import Column, Table

WIDTH = 110
INDENT = "  "


def paragraph(text: str) -> list[str]:
    """Return the lines of a paragraph; a word longer than a line, such as a digest, stays whole."""
    lines = wrap(text, WIDTH - len(INDENT), break_on_hyphens=False, break_long_words=False)
    return [INDENT + line for line in lines]


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is never folded."""
    first, *others = heading
    columns = [Column(first, no_wrap=True), *(Column(name, overflow="fold") for name in others)]
    drawn = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*row)
    text = StringIO()
    Console(file=text, width=WIDTH - len(INDENT), highlight=False, markup=False).print(drawn)
    return indent("\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines()), INDENT)
