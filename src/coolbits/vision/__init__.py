"""The vision experiment: image classifiers trained with each optimizer, on arrays of labelled images.

sources, idx, folders, pictures   where images come from: digits of scikit-learn, IDX files, folders, the hub
arrays, images                    images as memory-mapped arrays, and the stage that writes them
batches, augment                  batches as a pure function of (seed, step), and their augmentation
presets, model                    residual networks of transformers, by name and built
training, saved, stage            the loop, its resumable state, and the stage that makes classifiers
"""

from typing import Literal

Split = Literal["train", "test"]
