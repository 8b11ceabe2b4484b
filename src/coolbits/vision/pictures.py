"""Pictures: how one becomes a square array."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from coolbits.artifacts.errors import CoolbitsError

_AHEAD = 64  # pictures a thread that are decoded before the first of them is written
# 16 and 32 bits, integers and floats: Pillow cuts values off at 255 where it should scale them.
_DEEP = ("I", "F")

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def square(picture: Image.Image, size: int, where: str) -> np.ndarray:  # uint8 [3, size, size]
    """Return the centre square of a picture in RGB, its shorter side scaled to `size` (bilinear, antialiased).

    Raises:
        CoolbitsError: naming `where` it stood, if its pixels have more than 8 bits a channel.
    """
    if picture.mode.startswith(_DEEP):
        raise CoolbitsError(f"{where}: a picture of mode {picture.mode}; allowed are those of 8 bits a channel")
    width, height = picture.size
    scale = size / min(width, height)
    scaled = picture.convert("RGB").resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR
    )
    left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
    return np.asarray(scaled.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def read_square(path: Path, size: int) -> np.ndarray:  # uint8 [3, size, size]
    """Return `square` of a picture file.

    Raises:
        CoolbitsError: if it cannot be read, or as `square`.
    """
    try:
        with Image.open(path) as picture:
            return square(picture, size, str(path))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CoolbitsError(f"{path}: not a readable picture ({' '.join(str(error).split())})") from None


def side_by_side(function: Callable[[_In], _Out], items: Iterator[_In], threads: int) -> Iterator[_Out]:
    """Yield `function` of each item, in order, by several threads, which look only a little ahead."""
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(items, _AHEAD * threads)):
            yield from pool.map(function, chunk)


def as_picture(value: Any, where: str) -> Image.Image:
    """Return `value` if it is a picture.

    Raises:
        CoolbitsError: naming `where` it stood.
    """
    if not isinstance(value, Image.Image):
        raise CoolbitsError(f"{where}: expected a picture, found {type(value).__name__}")
    return value
