"""Sets of images small enough to make in a moment, and classifiers with every part but little else."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coolbits.artifacts.code import Slice
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.study.recipes.training import SGD
from coolbits.study.recipes.vision import IDX_FILES, Classifier, EpochSchedule, IdxFiles, ImageModel, Images
from coolbits.vision.images import build_images
from coolbits.vision.stage import run, start_training
from coolbits.vision.training import Training

torch.set_num_threads(1)

TRAIN, TEST, SIZE, CLASSES = 40, 12, 6, 3
CODE = Slice("coolbits.vision.stage", {"coolbits.vision.stage": "one"})
MODEL = ImageModel(config={"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"})


def bright_rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images [count, size, size] in which the row that is bright tells the class, and the classes."""
    labels = np.arange(count) % CLASSES
    images = np.random.default_rng(seed).integers(0, 90, (count, SIZE, SIZE))
    images[np.arange(count), labels * 2] += 150
    return images, labels


@dataclass(frozen=True)
class IdxFolder:
    """A folder with the four IDX files of a small set of images, gzipped."""

    path: Path

    def write(self, name: str, values: np.ndarray) -> None:
        """Write one of the files."""
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
        (self.path / f"{name}.gz").write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0))

    @property
    def locations(self) -> list[str]:
        """The paths of the four, in order."""
        return [str(self.path / f"{name}.gz") for name in IDX_FILES]

    @property
    def recipe(self) -> Images:
        """The recipe of the images as the files are now."""
        return Images(source=IdxFiles(sha256=tuple(file_digest(Path(path)) for path in self.locations)))


@pytest.fixture
def idx_folder(tmp_path: Path) -> IdxFolder:
    folder = IdxFolder(tmp_path / "rows")
    folder.path.mkdir()
    for name, values in zip(IDX_FILES, [*bright_rows(TRAIN, 0), *bright_rows(TEST, 1)], strict=True):
        folder.write(name, values)
    return folder


@pytest.fixture
def images(tmp_path: Path, idx_folder: IdxFolder) -> Path:
    """The directory of an `images` artifact."""
    out = tmp_path / "images"
    out.mkdir()
    build_images(idx_folder.recipe, idx_folder.locations, out)
    return out


@pytest.fixture
def recipe() -> Callable[..., Classifier]:
    """A function that gives the recipe of a few weights and two epochs of 8 images a step, changed as asked."""
    defaults = {
        "model": MODEL,
        "optimizer": SGD(weight_decay=1e-3),
        "schedule": EpochSchedule(kind="cosine", warmup_epochs=0.2),
        "peak_lr": 0.05,
        "epochs": 2,
        "batch_images": 8,
        "seed": 0,
        "input_size": 12,
        "log_steps": 2,
    }
    return lambda **changes: Classifier(**defaults | changes)


@pytest.fixture
def start(images: Path) -> Callable[[Classifier], Training]:
    """A function that opens a training before its first update."""
    return lambda recipe: start_training(recipe, images, "cpu")


class Lab:
    """A results folder with images, in which classifiers are trained by real jobs."""

    def __init__(self, root: Path, images: Path) -> None:
        self.store = Store(root, CODE)
        self.images = make_node("images", "rows", {}, {})

        def copy(out: Path) -> dict[str, Any]:
            for path in images.iterdir():
                (out / path.name).write_bytes(path.read_bytes())
            return {}

        self.store.ensure(self.images, copy)

    def node(self, recipe: Classifier) -> Node:
        """Return the node of a recipe, as a plan would name it."""
        return make_node("classifier", "tiny", recipe.identity(), {"images": self.images.ref})

    def train(self, recipe: Classifier, **execution: Any) -> Path:
        """Make the classifier of a recipe; return its directory."""
        node = self.node(recipe)
        run(Job("classifier", "test", (node,), {"device": "cpu"} | execution), self.store)
        return self.store.directory(node)

    def state(self, recipe: Classifier) -> Path:
        """Return where the state of an unfinished training lies."""
        return self.store.work_directory(self.node(recipe)) / "state"


@pytest.fixture
def lab(tmp_path: Path, images: Path) -> Callable[[str], Lab]:
    """A function that opens a results folder by name."""
    return lambda name: Lab(tmp_path / name, images)
