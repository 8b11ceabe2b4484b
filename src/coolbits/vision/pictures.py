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

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def square(picture: Image.Image, size: int) -> np.ndarray:  # uint8 [3, size, size]
    """Return the centre square of a picture in RGB, its shorter side scaled to `size` (bilinear, antialiased)."""
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
        CoolbitsError: if it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return square(picture, size)
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
