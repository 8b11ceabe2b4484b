"""Integer grids: the scale and zero point of a group of weights, and rounding onto them.

A level is `scale * (code - zero)` with codes 0 to 2**bits - 1. The scale and the zero point are those of GPTQModel
4.0 (`quantizer.py`, no search for a smaller error): symmetric grids span [-max|w|, max|w|], asymmetric ones
[min(w, 0), max(w, 0)].
"""

import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.ptq import Grid


def find_scales(weights: torch.Tensor, top: int | torch.Tensor, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and zero point of each group.

    Args:
        weights: [..., group].
        top: the highest code, 2**bits - 1; a tensor [...] if bits differ.
        symmetric: as `Grid.symmetric`.

    Returns:
        Scale (positive; 1 for a group of zeros) and zero point (an integer in the weights' dtype), each [...].
    """
    if symmetric:
        low = high = weights.abs().amax(-1)
    else:
        low, high = (-weights.amin(-1)).clamp_min(0), weights.amax(-1).clamp_min(0)
    scale = (low + high) / top
    # Below the smallest normal number the quotient w / s overflows or is flushed: such a group is all zeros.
    scale = torch.where(scale >= torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
    if symmetric:
        zero = torch.ones_like(scale) * ((top + 1) // 2)
    else:
        zero = torch.round(low / scale).clamp_min(0)
    return scale, zero


def quantize(weights: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, top: int | torch.Tensor) -> torch.Tensor:
    """Round `weights` to the nearest code (ties to even quotients), uint8; `scale`, `zero` and `top` broadcast."""
    codes = torch.round(weights / scale) + zero
    return codes.clamp_min_(0).clamp_max_(top).to(torch.uint8)


def group_size_for(grid: Grid, inputs: int, module: str = "the weight") -> int:
    """Return how many inputs share a scale in a layer of `inputs` inputs.

    Raises:
        CoolbitsError: if the recipe's group size does not divide them.
    """
    size = grid.group_size or inputs
    if inputs % size:
        raise CoolbitsError(
            f"grid.group_size: {size} does not divide the {inputs} inputs of {module}; "
            f"take a divisor, or null for one scale a row"
        )
    return size
