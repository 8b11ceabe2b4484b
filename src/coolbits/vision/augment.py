"""From bytes to what a classifier sees: normalized, augmented, cropped or scaled to its input size.

Every change of geometry is one crop: a rectangle of the image, in pixels, scaled to the input by bilinear
interpolation, mirrored or not. Which rectangle is a pure function of the generator's state.
"""

import math
from typing import NamedTuple, assert_never

import torch
from torch import Tensor
from torch.nn import functional

from coolbits.study.recipes.vision import Augmentation, ResizedCrop, Shift, Unchanged

_TRIES = 10
_WIDEST = 4 / 3  # of a random rectangle, width to height; the narrowest is the inverse


class Crops(NamedTuple):
    """A rectangle of each image: [images] float32 each, in pixels, and whether it is mirrored (bool)."""

    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor
    mirrored: Tensor


def normalized(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:  # uint8 [n, c, h, w] -> float32 [n, c, h, w]
    """Return pixels less the mean over the standard deviation of their channel; both are [channels]."""
    return (pixels.float() - mean[:, None, None]) / std[:, None, None]


def whole(count: int, height: int, width: int, size: int) -> Crops:
    """Return the crops of evaluation: the centre square of `size` where images are larger, else all of the image."""
    wide, high = min(width, size), min(height, size)
    places = ((width - wide) / 2, (height - high) / 2, wide, high)
    left, top, kept_width, kept_height = (torch.full((count,), float(place)) for place in places)
    return Crops(left, top, kept_width, kept_height, torch.zeros(count, dtype=torch.bool))


def random_crops(
    recipe: Augmentation, count: int, height: int, width: int, size: int, generator: torch.Generator
) -> Crops:
    """Return the crops of training, one an image, drawn from `generator` (of the CPU)."""
    match recipe:
        case Unchanged():
            return whole(count, height, width, size)
        case Shift():
            still = whole(count, height, width, size)
            moved = torch.randint(-recipe.pixels, recipe.pixels + 1, (2, count), generator=generator).float()
            mirrored = _mirrored(count, recipe.flip, generator)
            return still._replace(left=still.left + moved[0], top=still.top + moved[1], mirrored=mirrored)
        case ResizedCrop():
            return _rectangles(recipe, count, height, width, generator)
        case _:
            assert_never(recipe)


def cropped(images: Tensor, crops: Crops, size: int) -> Tensor:  # [n, c, h, w] -> [n, c, size, size]
    """Return each image's rectangle scaled to a square of `size`, edges repeated where it reaches beyond them."""
    count, channels, height, width = images.shape
    mirror = torch.where(crops.mirrored, -1.0, 1.0)
    scales = (mirror * crops.width / width, crops.height / height)
    centres = ((2 * crops.left + crops.width) / width - 1, (2 * crops.top + crops.height) / height - 1)
    zeros = torch.zeros_like(mirror)
    rows = (scales[0], zeros, centres[0], zeros, scales[1], centres[1])
    maps = torch.stack(rows, dim=1).reshape(count, 2, 3).to(images.device)  # output place -> image place
    grid = functional.affine_grid(maps, [count, channels, size, size], align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _mirrored(count: int, flip: bool, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < 0.5) & flip


def _rectangles(recipe: ResizedCrop, count: int, height: int, width: int, generator: torch.Generator) -> Crops:
    """Draw area and aspect ratio up to ten times until they fit, else keep the whole image, as is usual."""
    areas = recipe.smallest_area + (1 - recipe.smallest_area) * torch.rand(count, _TRIES, generator=generator)
    ratios = torch.exp(math.log(_WIDEST) * (2 * torch.rand(count, _TRIES, generator=generator) - 1))
    wide = torch.round(torch.sqrt(areas * height * width * ratios))
    high = torch.round(torch.sqrt(areas * height * width / ratios))
    fits = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # [n, 1], 0 where none fits
    found = fits.any(dim=1)
    wide = torch.where(found, wide.gather(1, first)[:, 0], float(width))
    high = torch.where(found, high.gather(1, first)[:, 0], float(height))
    left, top = torch.rand(2, count, generator=generator)
    left, top = torch.floor(left * (width - wide + 1)), torch.floor(top * (height - high + 1))
    return Crops(left, top, wide, high, _mirrored(count, recipe.flip, generator))
