"""Rows of local files: plain text, JSON lines (also packed) and parquet, each row with its place for error messages."""

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import json_kind

_ROWS_AT_ONCE = 256
# A page of a parquet file holds less than 2 GiB, and the text may share it with shorter ones.
_MOST_BYTES = (1 << 31) - (1 << 26)


class Row(NamedTuple):
    """One row: where it stands (for messages), its fields, and how many bytes of the file were read to reach it."""

    where: str
    fields: Mapping[str, Any]
    reached: int


def read_rows(path: Path, name: str, text_field: str) -> Iterator[Row]:
    """Yield the rows of the file at `path`, read as the suffix of `name` says; memory holds a few rows.

    Raises:
        CoolbitsError: for an unknown suffix, a damaged file, text that is not UTF-8, or a line that is not a JSON
            object; each names file and line or row.
    """
    for suffix, reader in _READERS.items():
        if name.endswith(suffix):
            return reader(path, text_field)
    raise CoolbitsError(f"{path}: {name} has none of the suffixes {', '.join(_READERS)}")


def text_of(row: Row, field: str) -> str:
    """Return the text in `field` of a row.

    Raises:
        CoolbitsError: if the field is missing, is not text, cannot be written as UTF-8, or is too long for a corpus.
    """
    if field not in row.fields:
        raise CoolbitsError(f"{row.where}: there is no key `{field}`, only {_listed(row.fields)}")
    text = row.fields[field]
    if not isinstance(text, str):
        raise CoolbitsError(f"{row.where}: the key `{field}` holds {json_kind(text)}, not text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise CoolbitsError(f"{row.where}: the key `{field}` is not valid UTF-8 ({error.reason})") from None
    if size > _MOST_BYTES:
        raise CoolbitsError(
            f"{row.where}: the key `{field}` holds {size} bytes of text, but a document may have {_MOST_BYTES} at most"
        )
    return text


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def _decode(raw: bytes, path: Path, line: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place = line + raw[: error.start].count(b"\n")
        raise CoolbitsError(f"{path}, line {place}: not valid UTF-8 ({error.reason})") from None


def _read_text(path: Path, field: str) -> Iterator[Row]:
    content = path.read_bytes()
    yield Row(str(path), {field: _decode(content, path, 1)}, len(content))


def _read_json_lines(unpack: Callable[[IO[bytes]], IO[bytes]]) -> Callable[[Path, str], Iterator[Row]]:
    def read(path: Path, _: str) -> Iterator[Row]:
        number = 0
        try:
            with path.open("rb") as packed, unpack(packed) as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        where = f"{path}, line {number}"
                        yield Row(where, _json_object(_decode(line, path, number), where), packed.tell())
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise CoolbitsError(f"{path}: the packed data is damaged after line {number} ({error})") from None

    return read


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CoolbitsError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except (RecursionError, ValueError):
        raise CoolbitsError(f"{where}: JSON of too many levels, or with too long a number") from None
    if not isinstance(value, dict):
        raise CoolbitsError(f"{where}: holds {json_kind(value)}; keys and values are expected")
    return value


def _read_parquet(path: Path, field: str) -> Iterator[Row]:
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            names, rows, before = file.schema_arrow.names, file.metadata.num_rows, 0
            if field not in names:
                raise CoolbitsError(f"{path}: there is no column `{field}`, only {_listed(dict.fromkeys(names))}")
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[field]):
                for number, cell in enumerate(batch.column(0), start=before + 1):
                    where = f"{path}, row {number}"
                    yield Row(where, {field: _python_value(cell, where, field)}, size * number // rows)
                before += batch.num_rows
    except pa.ArrowException as error:
        raise CoolbitsError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def _python_value(cell: Any, where: str, field: str) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        raise CoolbitsError(f"{where}: the column `{field}` is not valid UTF-8 ({error.reason})") from None


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines(lambda stream: stream),
    ".jsonl.gz": _read_json_lines(gzip.open),  # type: ignore[arg-type]
    ".jsonl.xz": _read_json_lines(lzma.open),
    ".parquet": _read_parquet,
}
