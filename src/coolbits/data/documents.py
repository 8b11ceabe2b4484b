"""Reading a corpus back: its documents by split, one at a time, in the order in which they were written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data import Split
from coolbits.data.formats import raise_if_the_disks

_ROWS_AT_ONCE = 256


def corpus_pieces(directory: Path) -> list[Path]:
    """Return the parquet pieces of a corpus, in order.

    Raises:
        CoolbitsError: if there are none.
    """
    pieces = sorted(directory.glob("documents-*.parquet"))
    if not pieces:
        raise CoolbitsError(f"{directory}: there is no documents-00000.parquet, so this is no corpus")
    return pieces


def read_rows(directory: Path, split: Split, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the documents of a split in the order of the corpus, with these columns; memory holds one row group.

    Raises:
        CoolbitsError: if a piece is missing or cannot be read.
    """
    for batch in _batches(directory, split, columns):
        yield from batch.to_pylist()


def read_documents(directory: Path, split: Split) -> Iterator[str]:
    """Yield the texts of a split in the order of the corpus; memory holds one row group."""
    return (row["text"] for row in read_rows(directory, split, ["text"]))


def read_sizes(directory: Path, split: Split) -> Iterator[tuple[str, int]]:
    """Yield id and bytes of text of each document of a split, in the order of the corpus."""
    for batch in _batches(directory, split, ["id", "text"]):
        yield from zip(batch["id"].to_pylist(), pc.binary_length(batch["text"]).to_pylist(), strict=True)


def _batches(directory: Path, split: Split, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for path in corpus_pieces(directory):
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[*columns, "split"]):
                    yield batch.filter(pc.equal(batch["split"], split)).select(columns)
        except (pa.ArrowException, OSError) as error:
            raise_if_the_disks(error)
            raise CoolbitsError(f"{path}: not a readable piece of a corpus ({str(error).splitlines()[0]})") from None


def count_documents(directory: Path) -> int:
    """Return how many documents a corpus has in both splits, from the footers alone."""
    return sum(pq.read_metadata(path).num_rows for path in corpus_pieces(directory))
