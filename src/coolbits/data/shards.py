"""Token shards: flat files of token ids behind a small header, memory-mapped and checked before use.

A shard is a 64-byte header and `count` little-endian tokens. The header holds magic, version, bytes per token, count,
vocabulary size and the SHA-256 of the token bytes. `index.json` beside the shards lists them by split, each with that
same digest, so that a truncated, swapped or bit-flipped shard is refused by name.
"""

import hashlib
import json
import os
import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data import Split

INDEX = "index.json"
_MAGIC = b"COOLBITS"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ32s")
_DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
_CHUNK_BYTES = 1 << 22
_HASHED_BY_DEFAULT = 1 << 31


class Header(NamedTuple):
    """What a shard says of itself; `itemsize` is the bytes of a token, `digest` the SHA-256 of the token bytes."""

    itemsize: int
    tokens: int
    vocabulary_size: int
    digest: str


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """Return the smallest type of shard that holds the ids of a vocabulary."""
    return _DTYPES[2 if vocabulary_size <= 1 << 16 else 4]


def write_shard(path: Path, pieces: Iterable[np.ndarray], vocabulary_size: int) -> Header:
    """Write token ids, given in pieces, as the shard `path`, synced to the disk; memory holds one piece.

    Raises:
        ValueError: if an id is outside the vocabulary.
    """
    dtype = token_dtype(vocabulary_size)
    digest, count = hashlib.sha256(), 0
    path.unlink(missing_ok=True)  # rather than write into bytes that an artifact may share
    with path.open("wb") as stream:
        stream.write(bytes(_HEADER.size))
        for piece in pieces:
            if piece.size and not 0 <= int(piece.min()) <= int(piece.max()) < vocabulary_size:
                raise ValueError(f"token ids must lie in [0, {vocabulary_size})")
            content = piece.astype(dtype).tobytes()
            digest.update(content)
            stream.write(content)
            count += piece.size
        stream.seek(0)
        stream.write(_HEADER.pack(_MAGIC, _VERSION, dtype.itemsize, count, vocabulary_size, digest.digest()))
        stream.flush()
        os.fsync(stream.fileno())
    return Header(dtype.itemsize, count, vocabulary_size, digest.hexdigest())


def read_header(path: Path) -> Header:
    """Read and check the header of a shard.

    Raises:
        CoolbitsError: if the file is missing, is not a shard of this version, or has not the size it should have.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(_HEADER.size)
    except FileNotFoundError:
        raise CoolbitsError(f"{path}: no such shard") from None
    if len(raw) < _HEADER.size:
        raise CoolbitsError(f"{path}: truncated: {len(raw)} bytes, less than a header")
    magic, version, itemsize, count, vocabulary_size, digest = _HEADER.unpack(raw)
    if magic != _MAGIC:
        raise CoolbitsError(f"{path}: not a token shard (it begins with {magic!r}, not {_MAGIC!r})")
    if version != _VERSION:
        raise CoolbitsError(f"{path}: a shard of version {version}, but this code reads version {_VERSION}")
    if itemsize not in _DTYPES:
        raise CoolbitsError(f"{path}: the header names tokens of {itemsize} bytes; 2 or 4 are allowed")
    expected, found = _HEADER.size + count * itemsize, path.stat().st_size
    if found != expected:
        verb = "truncated" if found < expected else "too long"
        raise CoolbitsError(f"{path}: {verb}: {found} bytes, but {count} tokens need {expected}")
    return Header(itemsize, count, vocabulary_size, digest.hex())


def open_shard(path: Path, vocabulary_size: int) -> np.ndarray:
    """Memory-map the tokens of a shard (uint16 or uint32), read-only.

    Raises:
        CoolbitsError: if the file is not a shard of this vocabulary size and of full length; `verify_shard` sees more.
    """
    header = read_header(path)
    if header.vocabulary_size != vocabulary_size:
        raise CoolbitsError(
            f"{path}: made for a vocabulary of {header.vocabulary_size}, but one of {vocabulary_size} is expected"
        )
    dtype = _DTYPES[header.itemsize]
    # An empty file region cannot be mapped.
    return np.memmap(path, dtype, "r", _HEADER.size, (header.tokens,)) if header.tokens else np.empty(0, dtype)


def verify_shard(path: Path) -> None:
    """Hash the tokens of a shard again; a file that did not change since is hashed once a process.

    Raises:
        CoolbitsError: if they are not the tokens that were written.
    """
    header, state = read_header(path), path.stat()
    if not _is_whole(path, header.digest, state.st_mtime_ns, state.st_size):
        raise CoolbitsError(f"{path}: damaged: its tokens have not the SHA-256 that its header names")


@cache
def _is_whole(path: Path, expected: str, _mtime: int, _size: int) -> bool:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(_HEADER.size)
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest() == expected


@dataclass(frozen=True)
class TokenStream:
    """The shards of a split as one long read-only row of tokens. `starts` is where each shard begins, and the end."""

    shards: tuple[np.ndarray, ...]
    starts: tuple[int, ...]
    vocabulary_size: int
    end_of_text_id: int

    @property
    def tokens(self) -> int:
        """The number of tokens in all shards."""
        return self.starts[-1]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return tokens `start` to `stop` (not included), over the borders of shards, as a new array.

        Raises:
            IndexError: if the range is not inside the stream.
        """
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"tokens {start} to {stop} are not inside a stream of {self.tokens}")
        first, last = bisect_right(self.starts, start) - 1, bisect_right(self.starts, stop - 1)
        parts = [
            shard[max(start - begin, 0) : stop - begin]
            for shard, begin in zip(self.shards[first:last], self.starts[first:last], strict=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, token_dtype(self.vocabulary_size))


def read_index(directory: Path) -> dict[str, Any]:
    """Return `index.json` of a directory of shards.

    Raises:
        CoolbitsError: if it is missing or not JSON.
    """
    path = directory / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CoolbitsError(f"{path}: no such file, so this is no directory of token shards") from None
    except ValueError as error:
        raise CoolbitsError(f"{path}: not JSON ({error})") from None
    return index


def open_stream(directory: Path, split: Split, verify: bool | None = None) -> TokenStream:
    """Open the shards of a split.

    Headers are always compared with the index. With `verify` all tokens are hashed again, once a process; by default
    so if the split has at most 2 GiB, which takes seconds.

    Raises:
        CoolbitsError: naming the shard that is missing, truncated, damaged or not the one that the index lists.
    """
    index = read_index(directory)
    vocabulary_size, shards, starts = index["vocabulary_size"], [], [0]
    for entry in index[split]:
        path = directory / entry["file"]
        shard = open_shard(path, vocabulary_size)
        if read_header(path).digest != entry["sha256"] or shard.size != entry["tokens"]:
            raise CoolbitsError(f"{path}: not the shard that {INDEX} lists under this name; was it swapped?")
        shards.append(shard)
        starts.append(starts[-1] + shard.size)
    if verify or (verify is None and sum(shard.nbytes for shard in shards) <= _HASHED_BY_DEFAULT):
        for entry in index[split]:
            verify_shard(directory / entry["file"])
    return TokenStream(tuple(shards), tuple(starts), vocabulary_size, index["end_of_text_id"])
