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
    found = torch.cat([batches(batch_images=8).training(step)[0] for step in range(5)])
    every, _ = batches().held_out(0, 40)
    one, other = (torch.sort(each.flatten(1).sum(1)).values for each in (found, every))
    torch.testing.assert_close(one, other)


def test_a_batch_is_a_function_of_seed_and_step(batches):
    augmented = {"augmentation": Shift(pixels=1)}
    one, same = (batches(**augmented).training(3) for _ in range(2))
    assert one[0].equal(same[0]) and one[1].equal(same[1])
    assert not one[0].equal(batches(**augmented).training(4)[0])
    assert not one[0].equal(batches(**augmented, seed=1).training(3)[0])


def test_a_stream_is_the_batches_one_after_the_other(batches):
    streamed = batches().stream(3, 7)
    for step, (images, labels) in zip(range(3, 7), streamed, strict=True):
        expected = batches().training(step)
        assert images.equal(expected[0]) and labels.equal(expected[1])


def test_epochs_become_steps_by_rounding_and_no_image_is_left_out(batches):
    assert [batches(batch_images=16).steps_in(epochs) for epochs in (1, 2, 0.2)] == [2, 5, 0]
    labels = torch.cat([batches(batch_images=16).training(step)[1] for step in range(5)])
    assert labels.bincount().tolist() == [28, 26, 26]


def test_held_out_images_come_in_order_the_last_batch_smaller(batches):
    images, labels = batches().held_out(32, 16)
    assert images.shape == (8, 1, 12, 12)
    assert labels.tolist() == [(number + 32) % 3 for number in range(8)]
