"""IDX files, the format of MNIST and Fashion-MNIST: a magic number, big-endian sizes, unsigned bytes."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from coolbits.artifacts.errors import CoolbitsError

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Return the array of an IDX file of unsigned bytes, gzipped or not: uint8 with so many dimensions.

    Raises:
        CoolbitsError: if it is missing, no such file, cut off, or has other dimensions.
    """
    content = _content(path)
    header = 4 + 4 * dimensions
    if len(content) < header or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise CoolbitsError(
            f"{path}: not an IDX file of unsigned bytes; it begins with {content[:4].hex() or 'nothing'}"
        )
    if content[3] != dimensions:
        raise CoolbitsError(f"{path}: an IDX file of {content[3]} dimensions where {dimensions} were expected")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    if len(content) != header + prod(shape):
        raise CoolbitsError(
            f"{path}: {len(content) - header:,} bytes of data, but its header says {prod(shape):,}; copy it anew"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except FileNotFoundError:
        raise CoolbitsError(f"{path}: no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CoolbitsError(f"{path}: not a whole gzip file ({error}); copy it anew") from None
