"""Reading a corpus back: its documents by split, one at a time, in the order in which they were written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data import Split

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
    for path in corpus_pieces(directory):
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[*columns, "split"]):
                    yield from batch.filter(pc.equal(batch["split"], split)).select(columns).to_pylist()
        except pa.ArrowException as error:
            raise CoolbitsError(f"{path}: not a readable piece of a corpus ({str(error).splitlines()[0]})") from None


def read_documents(directory: Path, split: Split) -> Iterator[str]:
    """Yield the texts of a split in the order of the corpus; memory holds one row group."""
    return (row["text"] for row in read_rows(directory, split, ["text"]))


def count_documents(directory: Path) -> int:
    """Return how many documents a corpus has in both splits, from the footers alone."""
    return sum(pq.read_metadata(path).num_rows for path in corpus_pieces(directory))


def text_bytes(directory: Path) -> int:
    """Return about how many bytes of text a corpus has, a few more than true, from the footers alone."""
    footers = [pq.read_metadata(path) for path in corpus_pieces(directory)]
    groups = (footer.row_group(index) for footer in footers for index in range(footer.num_row_groups))
    columns = (group.column(index) for group in groups for index in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")
