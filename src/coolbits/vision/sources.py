"""Sources: the labelled images of a recipe, one at a time, wherever they lie."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, starmap
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import numpy as np

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.batches import permute
from coolbits.data.formats import Row
from coolbits.data.hub import Opened, open_dataset
from coolbits.data.sources import check_digest
from coolbits.study.recipes.data import HubSource
from coolbits.study.recipes.vision import IDX_FILES, Digits, HubImages, IdxFiles, ImageFolder, ImageSource
from coolbits.vision import Split
from coolbits.vision.folders import list_pictures, listing_digest
from coolbits.vision.idx import read_idx
from coolbits.vision.pictures import as_picture, read_square, side_by_side, square

_DIGIT_LEVELS = 16  # scikit-learn's pixels count dots in squares of 4 x 4

Arrays = tuple[np.ndarray, np.ndarray]  # images, uint8 [n, channels, height, width], and labels [n]


class Labelled(NamedTuple):
    """One image, uint8 [channels, height, width], and the number of its class."""

    pixels: np.ndarray
    label: int


@dataclass(frozen=True)
class Source:
    """The images of both splits; `classes` are their names, None if only the labels will tell how many there are.

    `total` is how many images there are in all, 0 if unknown. `origin`, for the summary: of the hub, the `commit` that
    is read, None if unknown.
    """

    splits: dict[Split, Iterator[Labelled]]
    classes: tuple[str, ...] | None
    total: int
    origin: dict[str, str | None] = field(default_factory=dict)


def open_source(recipe: ImageSource, locations: list[Path], threads: int = 1) -> Source:
    """Open a source; `locations` are the paths of IDX files or the root of folders, `threads` those that decode.

    Raises:
        CoolbitsError: if a file is missing or is not the one that the recipe names by digest, or the hub refuses;
            while iterating: for an image or a label that cannot be read.
    """
    match recipe:
        case Digits():
            return _digits(recipe)
        case IdxFiles():
            return _idx(recipe, locations)
        case ImageFolder():
            return _folder(recipe, locations, threads)
        case HubImages():
            return _hub(recipe, threads)
        case _:
            assert_never(recipe)


def _digits(recipe: Digits) -> Source:
    # A second of imports that only this source needs.
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    count = len(data.target)
    pixels = (data.images * (255 // _DIGIT_LEVELS)).astype(np.uint8)[:, None]  # [n, 1, 8, 8]
    order = permute(np.arange(count), count, key=0)
    held_out = round(recipe.test_fraction * count)
    test, train = order[:held_out], order[held_out:]
    return _arrays({"train": (pixels[train], data.target[train]), "test": (pixels[test], data.target[test])})


def _idx(recipe: IdxFiles, locations: list[Path]) -> Source:
    if len(locations) != len(IDX_FILES):
        raise CoolbitsError(f"locations: {len(locations)} paths for the {len(IDX_FILES)} IDX files")
    for path, digest in zip(locations, recipe.sha256, strict=True):
        check_digest(path, digest)
    train, test = _read_pair(*locations[:2]), _read_pair(*locations[2:])
    _demand_every_class(train[1], locations[1])
    return _arrays({"train": train, "test": test})


def _demand_every_class(labels: np.ndarray, path: Path) -> None:
    """Refuse labels that leave a number out: of a stray one come as many classes. EMNIST's letters count from 1."""
    found = set(labels.tolist())
    if missing := sorted(set(range(1, max(found, default=0))) - found):
        raise CoolbitsError(
            f"{path}: no image has the label {missing[0]}, but there are some with {max(found)}; classes are numbered "
            "without gaps, from 0 or 1"
        )


def _read_pair(images: Path, labels: Path) -> Arrays:
    pixels, numbers = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(numbers):
        raise CoolbitsError(f"{labels}: {len(numbers)} labels for the {len(pixels)} images of {images.name}")
    return pixels[:, None], numbers


def _arrays(splits: dict[Split, Arrays]) -> Source:
    items: dict[Split, Iterator[Labelled]] = {
        split: starmap(Labelled, zip(*arrays, strict=True)) for split, arrays in splits.items()
    }
    return Source(items, None, sum(len(labels) for _, labels in splits.values()))


def _folder(recipe: ImageFolder, locations: list[Path], threads: int) -> Source:
    (root,) = locations
    if (found := listing_digest(root, (recipe.train, recipe.test))) != recipe.sha256:
        raise CoolbitsError(f"{root}: the digest of its file list is {found}, but the recipe's is {recipe.sha256}")
    train, test = (list_pictures(root / folder) for folder in (recipe.train, recipe.test))
    names = tuple(train)
    if unknown := sorted(set(test) - set(train)):
        raise CoolbitsError(f"{root / recipe.test}: the class {unknown[0]!r} is not among those of {recipe.train}")

    def items(classes: dict[str, list[Path]]) -> Iterator[Labelled]:
        found = ((path, names.index(name)) for name, paths in classes.items() for path in paths)
        return side_by_side(lambda item: Labelled(read_square(item[0], recipe.size), item[1]), found, threads)

    total = sum(len(paths) for paths in chain(train.values(), test.values()))
    return Source({"train": items(train), "test": items(test)}, names, total)


def _hub(recipe: HubImages, threads: int) -> Source:
    def opened(split: str, revision: str) -> Opened:
        return open_dataset(
            HubSource(id=recipe.id, config=recipe.config, split=split, revision=revision, documents=recipe.images)
        )

    def items(rows: Iterator[Row]) -> Iterator[Labelled]:
        def labelled(row: Row) -> Labelled:
            missing = [name for name in (recipe.image_field, recipe.label_field) if name not in row.fields]
            if missing:
                raise CoolbitsError(f"{row.where}: no field {missing[0]!r}; there are {', '.join(row.fields)}")
            where = f"{row.where}, {recipe.image_field}"
            picture = as_picture(row.fields[recipe.image_field], where)
            return Labelled(square(picture, recipe.size, where), row.fields[recipe.label_field])

        return side_by_side(labelled, rows, threads)

    train = opened(recipe.train, recipe.revision)
    test = opened(recipe.test, train.commit or recipe.revision)  # a branch may have moved since
    known = train.total + test.total if train.total and test.total else 0
    return Source({"train": items(train.rows), "test": items(test.rows)}, None, known, {"commit": train.commit})
