"""Batches of images: each image once an epoch, and the same batch for the same seed and step."""

import pytest
import torch

from coolbits.study.recipes.vision import Shift
from coolbits.vision.arrays import open_images
from coolbits.vision.batches import ImageBatches


@pytest.fixture
def batches(images, recipe):
    return lambda **changes: ImageBatches(open_images(images, "train"), recipe(**changes), "cpu")


def test_an_epoch_has_every_image_once(batches, images):
    found = torch.cat([pixels for pixels, _ in batches(batch_images=8).stream(0, 5)])
    every, _ = batches().held_out(0, 40)
    one, other = (torch.sort(each.flatten(1).sum(1)).values for each in (found, every))
    torch.testing.assert_close(one, other)


def test_a_batch_is_a_function_of_seed_and_step(batches):
    augmented = {"augmentation": Shift(pixels=1)}
    (one, other), (same, _), (differs, _) = (list(batches(**augmented, seed=seed).stream(3, 5)) for seed in (0, 0, 1))
    assert one[0].equal(same[0]) and one[1].equal(same[1])
    assert not one[0].equal(other[0])
    assert not one[0].equal(differs[0])


def test_a_stream_begins_at_any_step(batches):
    whole = list(batches().stream(0, 7))
    for (images, labels), expected in zip(batches().stream(3, 7), whole[3:], strict=True):
        assert images.equal(expected[0]) and labels.equal(expected[1])


def test_epochs_become_steps_by_rounding_and_no_image_is_left_out(batches):
    assert [batches(batch_images=16).steps_in(epochs) for epochs in (1, 2, 0.2)] == [2, 5, 0]
    labels = torch.cat([found for _, found in batches(batch_images=16).stream(0, 5)])
    assert labels.bincount().tolist() == [28, 26, 26]


def test_held_out_images_come_in_order_the_last_batch_smaller(batches):
    images, labels = batches().held_out(32, 16)
    assert images.shape == (8, 1, 12, 12)
    assert labels.tolist() == [(number + 32) % 3 for number in range(8)]
