"""Round to nearest: the grid alone decides."""

import torch

from coolbits.models.layers import IntegerLayer, neighbouring_groups
from coolbits.ptq.grids import find_scales, group_size_for, quantize
from coolbits.study.recipes.methods import Grid


def round_to_nearest(weight: torch.Tensor, grid: Grid) -> IntegerLayer:
    """Quantize a weight [outputs, inputs] group by group, each value to the nearest level.

    Raises:
        CoolbitsError: if the group size does not divide the inputs.
    """
    outputs, inputs = weight.shape
    size, top = group_size_for(grid, inputs), grid.top
    groups = weight.reshape(outputs, inputs // size, size)
    scale, zero = find_scales(groups, top, grid.symmetric, grid.search)
    codes = quantize(groups, scale[..., None], zero[..., None], top).reshape(outputs, inputs)
    index = neighbouring_groups(inputs, size).to(weight.device)
    return IntegerLayer(grid.bits, grid.symmetric, codes, scale, zero.to(torch.uint8), index)
