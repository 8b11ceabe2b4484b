"""The corpus: documents after exact deduplication, each in `train` or `validation` by a hash of its text.

Nothing here grows with the corpus but files: the digests seen so far live in an SQLite table on disk, and parquet
pieces are written one row group at a time.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.store import Store
from coolbits.data import Split
from coolbits.data.sources import Document, document_identity, open_documents
from coolbits.study.recipes.data import Corpus

_SCHEMA = pa.schema([("id", pa.string()), ("split", pa.string()), ("source", pa.string()), ("text", pa.string())])
_GROUP_CHARACTERS = 8 << 20
_PIECE_GROUPS = 32
_SEEN_CACHE_KIB = 65_536

Row = dict[str, str]


def run(job: Job, store: Store) -> int:
    """Make the corpora of a job; return how many were not there yet."""
    locations = job.locations.get("files", [])

    def make(recipe: Corpus) -> Callable[[Path], dict[str, Any]]:
        return lambda out: build_corpus(recipe, locations, out)

    return sum(store.ensure(node, make(Corpus.read(node.recipe))) for node in job.nodes)


def build_corpus(recipe: Corpus, locations: list[str], out: Path) -> dict[str, Any]:
    """Write the documents of the recipe's source to `out` as `documents-00000.parquet`, ... and return the summary.

    Columns: id (BLAKE2b-128 of the text, hex), split, source, text. Documents keep the order of the source; of equal
    ones the first stays; those of Unicode's blanks alone are left out. `locations` are the paths of a `FileSource`.

    Raises:
        CoolbitsError: if the source cannot be read, or one of the two splits would be empty.
    """
    documents = open_documents(recipe.source, [Path(location) for location in locations])
    tally: Counter[str] = Counter()
    with _digest_set(out / ".seen.sqlite") as is_new:
        _write_pieces(_distinct(documents.followed("corpus"), recipe, is_new, tally), out)
    if not tally["documents"]:
        names = getattr(recipe.source, "names", (recipe.source.kind,))
        raise CoolbitsError(f"data.corpus: no document that is not blank in {', '.join(names)}")
    for split in ("train", "validation"):
        if not tally[f"{split}_documents"]:
            raise CoolbitsError(
                f"data.validation_fraction: at {recipe.validation_fraction} none of {tally['documents']} documents "
                f"is in {split}; take another fraction or salt, or more documents"
            )
    names = ("documents", "train_documents", "validation_documents", "bytes", "duplicates", "blank")
    return {name: tally[name] for name in names} | documents.origin


def split_of(text: bytes, salt: str, validation_fraction: float) -> Split:
    """Return the split of a document: `validation` if a hash of salt and text, as a number in [0, 1), is small.

    The place of a document in its source has no part in it, so a document never changes sides when others come or go.
    """
    digest = hashlib.blake2b(salt.encode() + b"\0" + text, digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < validation_fraction * 2**64 else "train"


def _distinct(
    documents: Iterator[Document], recipe: Corpus, is_new: Callable[[bytes], bool], tally: Counter[str]
) -> Iterator[Row]:
    for document in documents:
        text = document.text.encode()
        identity = document_identity(text)
        if not document.text.strip():
            tally["blank"] += 1
        elif not is_new(identity):
            tally["duplicates"] += 1
        else:
            split = split_of(text, recipe.salt, recipe.validation_fraction)
            tally.update({"documents": 1, f"{split}_documents": 1, "bytes": len(text)})
            yield {"id": identity.hex(), "split": split, "source": document.source, "text": document.text}


@contextmanager
def _digest_set(path: Path) -> Iterator[Callable[[bytes], bool]]:
    """Give a function that adds a digest to a set on disk and says whether it is new; the set ends with the block."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{_SEEN_CACHE_KIB}")
        connection.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        connection.execute("BEGIN")
        yield lambda digest: connection.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1
    finally:
        connection.close()
        path.unlink(missing_ok=True)


def _write_pieces(rows: Iterator[Row], out: Path) -> None:
    groups = _groups(rows)
    for number in count():
        piece = islice(groups, _PIECE_GROUPS)
        first = next(piece, None)
        if first is None:
            return
        path = out / f"documents-{number:05d}.parquet"
        # Texts hardly repeat: a dictionary of them would only cost time.
        with pq.ParquetWriter(path, _SCHEMA, compression="zstd", use_dictionary=["split", "source"]) as writer:
            for group in chain([first], piece):
                writer.write_table(group)


def _groups(rows: Iterator[Row]) -> Iterator[pa.Table]:
    """Cut rows into tables of about `_GROUP_CHARACTERS`: the row groups, and all that is in memory at once."""
    group: list[Row] = []
    filled = 0
    for row in rows:
        group.append(row)
        filled += len(row["text"])
        if filled >= _GROUP_CHARACTERS:
            yield pa.Table.from_pylist(group, schema=_SCHEMA)
            group, filled = [], 0
    if group:
        yield pa.Table.from_pylist(group, schema=_SCHEMA)
