"""Crops: what a classifier sees of an image, against plain slicing and torch's own interpolation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from coolbits.study.recipes.vision import ResizedCrop, Shift, Unchanged
from coolbits.vision.augment import Crops, cropped, normalized, random_crops, whole

IMAGES = torch.rand(5, 3, 10, 12, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crops(left: float, top: float, width: float, height: float, mirrored: bool = False) -> Crops:
    ones = torch.ones(len(IMAGES))
    return Crops(ones * left, ones * top, ones * width, ones * height, torch.full((len(IMAGES),), mirrored))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_rectangle_of_the_inputs_size_is_a_slice(mirrored):
    found = cropped(IMAGES, crops(3, 2, 6, 6, mirrored), 6)
    expected = IMAGES[:, :, 2:8, 3:9]
    torch.testing.assert_close(found, expected.flip(3) if mirrored else expected, atol=1e-5, rtol=0)


def test_enlarging_is_bilinear():
    square = IMAGES[..., :10]
    found = cropped(square, whole(5, 10, 10, 20), 20)
    expected = functional.interpolate(square, size=20, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_evaluation_sees_the_centre_of_larger_images():
    found = cropped(IMAGES, whole(5, 10, 12, 8), 8)
    torch.testing.assert_close(found, IMAGES[:, :, 1:9, 2:10], atol=1e-5, rtol=0)


def test_edges_are_repeated_beyond_the_image():
    found = cropped(IMAGES, crops(-2, 0, 10, 10), 10)
    torch.testing.assert_close(found[..., 0], IMAGES[..., 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[..., 2:], IMAGES[..., :8], atol=1e-5, rtol=0)


def test_pixels_are_normalized_by_channel():
    pixels = torch.randint(0, 256, (4, 2, 3, 3), dtype=torch.uint8, generator=generator())
    found = normalized(pixels, torch.tensor([10.0, 20.0]), torch.tensor([2.0, 4.0]))
    assert found[1, 1, 2, 0] == (pixels[1, 1, 2, 0].item() - 20) / 4


@pytest.mark.parametrize("recipe", [Unchanged(), Shift(pixels=2), ResizedCrop()], ids=lambda recipe: recipe.kind)
def test_the_generator_alone_decides(recipe):
    one, same, other = (random_crops(recipe, 64, 10, 12, 8, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert isinstance(recipe, Unchanged) or any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 1), st.integers(0, 99))
def test_random_rectangles_lie_inside_the_image(height, width, smallest, seed):
    found = random_crops(ResizedCrop(smallest_area=smallest), 32, height, width, 8, generator(seed))
    assert (found.left >= 0).all() and (found.left + found.width <= width).all()
    assert (found.top >= 0).all() and (found.top + found.height <= height).all()
    assert (found.width >= 1).all() and (found.height >= 1).all()


def test_random_rectangles_keep_the_area_and_the_ratio_asked_for():
    found = random_crops(ResizedCrop(smallest_area=0.25), 4000, 100, 100, 8, generator())
    area, ratio = found.width * found.height / 1e4, found.width / found.height
    assert 0.24 < area.min() < 0.3 and area.max() > 0.9
    assert 0.7 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.4
    assert found.mirrored.float().mean() == pytest.approx(0.5, abs=0.03)


def test_shifts_reach_every_place_and_do_not_mirror_unasked():
    found = random_crops(Shift(pixels=2, flip=False), 500, 10, 10, 10, generator())
    assert set(found.left.tolist()) == set(found.top.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert not found.mirrored.any()
