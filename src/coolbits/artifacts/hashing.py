"""Canonical JSON and SHA-256 digests: the ground of every fingerprint."""

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """Serialize `value` so that equal values give equal text: sorted keys, no spaces, integral floats as `1.0`.

    Raises:
        ValueError: for NaN, infinities or anything JSON cannot hold, rather than guessing.
    """
    _refuse_unstable(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_unstable(value: Any) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical form")
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_unstable(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not text")
            _refuse_unstable(item)
    else:
        raise ValueError(f"{type(value).__name__} has no canonical form")


def digest_of(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def known_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes; one that nobody has written to since is hashed once a process."""
    state = path.stat()
    return _digest_as_of(path, state.st_ino, state.st_size, state.st_mtime_ns)


@cache
def _digest_as_of(path: Path, _inode: int, _size: int, _mtime: int) -> str:
    return file_digest(path)


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes, read in pieces of one MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()
