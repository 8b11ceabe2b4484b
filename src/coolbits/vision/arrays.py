"""Labelled images on disk: one memory-mapped array of bytes a split, their labels, and `index.json`.

`train_images.npy` and `test_images.npy` are uint8 [images, channels, height, width], the labels beside them int64.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.vision import Split
from coolbits.vision.sources import Labelled

INDEX = "index.json"


@dataclass
class Written:
    """What was written of a split: how many images, of which shape, how many classes, sums over pixels by channel."""

    images: int
    shape: tuple[int, ...]
    classes: int
    sums: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class ImageSet:
    """The images of one split, memory-mapped; `mean` and `std` are those of the training pixels, by channel."""

    pixels: np.ndarray  # uint8 [images, channels, height, width]
    labels: np.ndarray  # int64 [images]
    classes: tuple[str, ...]
    mean: np.ndarray  # float32 [channels]
    std: np.ndarray  # float32 [channels]

    def __len__(self) -> int:
        return len(self.labels)


def write_split(items: Iterator[Labelled], split: Split, out: Path) -> Written:
    """Write the images and labels of a split to `out`, one at a time.

    Raises:
        CoolbitsError: if there is none, they have no pixels or differ in shape, or a label is no class number.
    """
    first = next(items, None)
    if first is None:
        raise CoolbitsError(f"images.source: it holds no image in {split}")
    shape = first.pixels.shape
    if not first.pixels.size:
        raise CoolbitsError(f"images.source: images of {shape} in {split} have no pixels")
    labels: list[int] = []
    sums, squares = np.zeros((2, shape[0]), np.int64)
    with (out / f"{split}_images.npy").open("wb") as stream:
        _write_header(stream, (0, *shape))
        for image in chain([first], items):
            _check(image, shape, f"images.source: image {len(labels) + 1:,} of {split}")
            stream.write(image.pixels.tobytes())
            flat = image.pixels.reshape(shape[0], -1).astype(np.int64)
            sums += flat.sum(1)
            squares += (flat * flat).sum(1)
            labels.append(int(image.label))
        # The format leaves room in its header for the first dimension to grow.
        stream.seek(0)
        _write_header(stream, (len(labels), *shape))
    np.save(out / f"{split}_labels.npy", np.asarray(labels, np.int64))
    return Written(len(labels), shape, max(labels) + 1, sums, squares)


def write_index(train: Written, test: Written, classes: tuple[str, ...] | None, out: Path) -> dict[str, Any]:
    """Write `index.json`; return it without the names of the classes and the moments of the pixels.

    Raises:
        CoolbitsError: if the splits do not fit each other.
    """
    names = classes or tuple(str(number) for number in range(train.classes))
    if test.shape != train.shape:
        raise CoolbitsError(f"images.source: images of {test.shape} in test, but of {train.shape} in train")
    if test.classes > len(names):
        raise CoolbitsError(f"images.source: class {test.classes - 1} in test, but train has only {len(names)} classes")
    channels, height, width = train.shape
    pixels = train.images * height * width
    mean = train.sums / pixels
    std = np.sqrt(np.maximum(train.squares / pixels - mean**2, 1.0))
    shape = {"channels": channels, "height": height, "width": width}
    counts = {"train_images": train.images, "test_images": test.images} | shape
    write_json(out / INDEX, counts | {"classes": names, "mean": mean.tolist(), "std": std.tolist()})
    return counts | {"classes": len(names)}


def open_images(directory: Path, split: Split) -> ImageSet:
    """Open the images of one split of an `images` artifact.

    Raises:
        CoolbitsError: if a file is missing or is not what the index says.
    """
    try:
        index = json.loads((directory / INDEX).read_bytes())
        pixels = np.load(directory / f"{split}_images.npy", mmap_mode="r")
        labels = np.load(directory / f"{split}_labels.npy")
        shape = tuple(index[name] for name in (f"{split}_images", "channels", "height", "width"))
        mean, std = (np.asarray(index[name], np.float32) for name in ("mean", "std"))
        classes = tuple(index["classes"])
    except (EOFError, KeyError, OSError, TypeError, ValueError) as error:
        said = f"no {error} in {INDEX}" if isinstance(error, KeyError) else error
        raise CoolbitsError(f"{directory}: not readable as images ({said}); delete it to have it made again") from None
    if pixels.shape != shape or len(labels) != len(pixels):
        raise CoolbitsError(f"{directory}: {split} has images of {pixels.shape}, but {INDEX} says {shape}")
    return ImageSet(pixels, labels, classes, mean, std)


def _write_header(stream: Any, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _check(image: Labelled, shape: tuple[int, ...], where: str) -> None:
    if image.pixels.shape != shape:
        raise CoolbitsError(f"{where}: of shape {image.pixels.shape}, but the first one is of {shape}")
    if not isinstance(image.label, int | np.integer) or image.label < 0:
        raise CoolbitsError(f"{where}: the label {image.label!r} is no number of a class")
