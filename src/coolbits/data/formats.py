"""Rows of local files: plain text, JSON lines (also packed) and parquet, each row with its place for error messages."""

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import json_kind

_ROWS_AT_ONCE = 256
# A page of a parquet file holds less than 2 GiB, and the text may share it with shorter ones.
_MOST_BYTES = (1 << 31) - (1 << 26)
_PACKED_BYTES = 1 << 16


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


def _read_json_lines(unpack: Callable[[BufferedReader], Iterable[bytes]]) -> Callable[[Path, str], Iterator[Row]]:
    def read(path: Path, _: str) -> Iterator[Row]:
        number = 0
        try:
            with path.open("rb") as packed:
                for number, line in enumerate(unpack(packed), start=1):
                    if line.strip():
                        where = f"{path}, line {number}"
                        yield Row(where, _json_object(_decode(line, path, number), where), packed.tell())
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise_if_the_disks(error)
            raise CoolbitsError(f"{path}: the packed data is damaged after line {number} ({error})") from None

    return read


def raise_if_the_disks(error: Exception) -> None:
    """Raise an error again if it has a number: it is the disk's, and says nothing of what was to be read."""
    if getattr(error, "errno", None) is not None:
        raise error


def _packed(unpack: Callable[[IO[bytes]], Iterable[bytes]]) -> Callable[[Path, str], Iterator[Row]]:
    def lines(packed: BufferedReader) -> Iterable[bytes]:
        if not packed.peek(1):  # which some readers take for a file without lines
            raise EOFError("it is empty")
        return unpack(packed)

    return _read_json_lines(lines)


def _gzip_lines(packed: IO[bytes]) -> Iterable[bytes]:
    return gzip.GzipFile(fileobj=packed)


def unpack_zstd(packed: IO[bytes]) -> BufferedReader:
    """Return the content of frames of Zstandard that follow each other, as a stream."""
    return BufferedReader(pa.CompressedInputStream(packed, "zstd"), _PACKED_BYTES)


def _xz_lines(packed: IO[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    for piece in _xz_pieces(packed):
        *ended, last = piece.split(b"\n")
        for line in ended:
            yield b"".join([*begun, line])
            begun = []
        begun.append(last)
    yield b"".join(begun)


def _xz_pieces(packed: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of streams that follow each other, with zeros between and behind them, as the format allows.

    Python's own reader takes all that is no stream for the end: damage, and whole streams behind zeros.
    """
    raw = b""
    while True:
        stream = lzma.LZMADecompressor()
        while not stream.eof:
            if stream.needs_input and not (raw := raw or packed.read(_PACKED_BYTES)):
                raise EOFError("it ends within a stream")
            yield stream.decompress(raw, _PACKED_BYTES)
            raw = b""
        raw = stream.unused_data.lstrip(b"\0")
        while not raw:
            if not (more := packed.read(_PACKED_BYTES)):
                return
            raw = more.lstrip(b"\0")


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
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise_if_the_disks(error)
        raise CoolbitsError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def _python_value(cell: Any, where: str, field: str) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        raise CoolbitsError(f"{where}: the column `{field}` is not valid UTF-8 ({error.reason})") from None


_READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines(lambda stream: stream),
    ".jsonl.gz": _packed(_gzip_lines),
    ".jsonl.xz": _packed(_xz_lines),
    ".jsonl.zst": _packed(unpack_zstd),
    ".json.gz": _packed(_gzip_lines),
    ".parquet": _read_parquet,
}
