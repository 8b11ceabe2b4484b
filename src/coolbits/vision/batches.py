"""Batches of images as a pure function of (seed, step): nothing is drawn, nothing needs saving."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from coolbits.data.batches import places_of
from coolbits.study.recipes.vision import Classifier
from coolbits.vision.arrays import ImageSet
from coolbits.vision.augment import cropped, normalized, random_crops, whole

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ImageBatches:
    """The batches of one split as a classifier sees them, on its device: [batch, channels, size, size], [batch].

    Sample number s = step * batch + place belongs to epoch s div images, so a batch may span two epochs and no image
    is ever left out.
    """

    images: ImageSet
    recipe: Classifier
    device: str

    @property
    def size(self) -> int:
        """Pixels of the square that the model sees."""
        return self.recipe.input_size or max(self.images.pixels.shape[2:])

    def steps_in(self, epochs: float) -> int:
        """Return the updates of so many epochs, rounded."""
        return round(epochs * len(self.images) / self.recipe.batch_images)

    def stream(self, first: int, until: int) -> Iterator[Batch]:
        """Yield the augmented batches of updates `first` to `until` - 1, counted from 0.

        Each is read while the one before it is in use.
        """
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, self._places(first))
            for step in range(first, until):
                batch = coming.result()
                coming = reader.submit(self._read, self._places(step + 1))
                yield self._augmented(batch, step)

    def held_out(self, start: int, count: int) -> Batch:
        """Return up to `count` images from number `start` on, as they are."""
        pixels, labels = self._normalized(self._read(slice(start, start + count)))
        found, _, height, width = pixels.shape
        return cropped(pixels, whole(found, height, width, self.size), self.size), labels

    def _places(self, step: int) -> np.ndarray:
        return places_of(step, self.recipe.batch_images, len(self.images), self.recipe.seed)

    def _read(self, places: np.ndarray | slice) -> Batch:
        """Return images as they are stored, uint8, in memory that is no longer the file's."""
        return torch.from_numpy(self.images.pixels[places].copy()), torch.from_numpy(self.images.labels[places].copy())

    def _augmented(self, batch: Batch, step: int) -> Batch:
        pixels, labels = self._normalized(batch)
        count, _, height, width = pixels.shape
        generator = _generator(self.recipe.seed, step)
        crops = random_crops(self.recipe.augmentation, count, height, width, self.size, generator)
        return cropped(pixels, crops, self.size), labels

    def _normalized(self, batch: Batch) -> Batch:
        pixels, labels, mean, std = (
            tensor.to(self.device)
            for tensor in (*batch, torch.from_numpy(self.images.mean), torch.from_numpy(self.images.std))
        )
        return normalized(pixels, mean, std), labels


def _generator(seed: int, step: int) -> torch.Generator:
    digest = hashlib.blake2b(f"augment {seed} {step}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
