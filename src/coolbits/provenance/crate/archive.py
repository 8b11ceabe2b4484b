"""The zip file of a crate: whole or absent, the same bytes for the same contents, and no file that is not as stated."""

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import sync_directory
from coolbits.artifacts.progress import Progress
from coolbits.provenance.crate.contents import Content

_METADATA = "ro-crate-metadata.json"
_CHUNK_BYTES = 1 << 20
# The earliest date that a zip file can hold: when a file was last written is no part of a crate.
_DATE = (1980, 1, 1, 0, 0, 0)
_FILE, _FOLDER = 0o100644, 0o040755
_DENSE = (".bin", ".npy", ".parquet", ".png", ".safetensors", ".xz")


def write_archive(out: Path, metadata: str, contents: Sequence[Content]) -> None:
    """Write a crate: its metadata, then the contents that are packed, with progress. Atomic.

    Raises:
        CoolbitsError: if a file is not the one that its digest names, or cannot be read or written.
    """
    packed = [content for content in contents if content.packed]
    try:
        with _replacing(out) as partial, ZipFile(partial, "w") as archive:
            archive.writestr(_entry(_METADATA), metadata)
            for folder in _folders(packed):
                archive.writestr(_entry(folder, _FOLDER), "")
            with Progress(out.name, len(packed), "file") as progress:
                for content in packed:
                    _pack(archive, content)
                    progress.advance()
    except OSError as error:
        raise CoolbitsError(f"{error.filename or out}: {error.strerror or error}; no crate was written") from None


def _pack(archive: ZipFile, content: Content) -> None:
    digest, entry = hashlib.sha256(), _entry(content.path)
    entry.file_size = content.bytes
    with content.source.open("rb") as source, archive.open(entry, "w") as target:
        # One byte more than stated is enough to know, and keeps to what the entry has room for.
        left = content.bytes + 1
        while left and (piece := source.read(min(left, _CHUNK_BYTES))):
            digest.update(piece)
            target.write(piece)
            left -= len(piece)
    if digest.hexdigest() != content.sha256:
        raise CoolbitsError(f"{content.source}: not the bytes of its digest; `coolbits audit` tells more")


def _folders(contents: Iterable[Content]) -> list[str]:
    """Return the folders that the contents are in: readers look for an entry of each that the metadata describes."""
    folders = {folder for content in contents for folder in PurePosixPath(content.path).parents}
    return sorted(f"{folder}/" for folder in folders - {PurePosixPath()})


def _entry(name: str, mode: int = _FILE) -> ZipInfo:
    entry = ZipInfo(name, _DATE)
    entry.external_attr = mode << 16
    entry.compress_type = ZIP_STORED if PurePosixPath(name).suffix in _DENSE else ZIP_DEFLATED
    return entry


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a name beside `target` whose file becomes `target` when the block ends without an error."""
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(target)
        sync_directory(target.parent)
    finally:
        partial.unlink(missing_ok=True)
