"""The stage of images: from any source to arrays of equal squares.

Pictures are decoded once, here, and not once an epoch, variant and seed: training then only crops arrays. What that
costs is the borders of pictures that are not square, and the disk of plain bytes (ImageNet at 256 pixels: 262 GB).
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coolbits.artifacts.job import Job
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.study.recipes.vision import Images
from coolbits.vision.arrays import write_index, write_split
from coolbits.vision.sources import Labelled, open_source


def run(job: Job, store: Store) -> int:
    """Make the sets of images of a job; return how many were not there yet."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def make(recipe: Images, locations: list[str]) -> Callable[[Path], dict[str, Any]]:
        return lambda out: build_images(recipe, locations, out, threads)

    return sum(
        store.ensure(node, make(Images.read(node.recipe), job.locations.get(f"images/{node.name}", [])))
        for node in job.nodes
    )


def build_images(recipe: Images, locations: list[str], out: Path, threads: int = 1) -> dict[str, Any]:
    """Write the images of the recipe's source to `out` as arrays; return the summary.

    `locations` are the paths of IDX files, or the root of folders of pictures.

    Raises:
        CoolbitsError: if the source cannot be read, or its images, labels or splits do not fit each other.
    """
    source = open_source(recipe.source, [Path(location) for location in locations], threads)
    with Progress("images", source.total, "image") as progress:

        def followed(items: Iterator[Labelled]) -> Iterator[Labelled]:
            for item in items:
                yield item
                # A source of unknown length cannot say how much is left.
                if source.total:
                    progress.advance()

        train = write_split(followed(source.splits["train"]), "train", out)
        test = write_split(followed(source.splits["test"]), "test", out)
    return write_index(train, test, source.classes, out) | source.origin
