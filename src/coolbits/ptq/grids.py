"""Integer grids: the scale and zero point of a group of weights, and rounding onto them.

A level is `scale * (code - zero)` with codes 0 to `Grid.top`. Scale and zero point are those of GPTQModel
(`quantizer.py`): a symmetric grid spans [-max|w|, max|w|], an asymmetric one [min(w, 0), max(w, 0)]. Quotients are
taken in float32, as the libraries do: the largest weight of a symmetric group lies half way between two levels, and
its rounding hangs on that.
"""

import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.methods import Grid, ScaleSearch

Scales = tuple[torch.Tensor, torch.Tensor]


def find_scales(
    weights: torch.Tensor, top: int | torch.Tensor, symmetric: bool, search: ScaleSearch | None = None
) -> Scales:
    """Return the scale (positive; 1 for a group of zeros) and the zero point of each group.

    Args:
        weights: [..., group].
        top: the highest code, 2**bits - 1; a tensor [...] if bits differ.
        symmetric: as `Grid.symmetric`.
        search: as `Grid.search`.

    Returns:
        Scale and zero point, both float32 [...]; the zero point is an integer.
    """
    weights = weights.to(torch.float32)
    if symmetric:
        low = high = weights.abs().amax(-1)
    else:
        low, high = (-weights.amin(-1)).clamp_min_(0), weights.amax(-1).clamp_min_(0)
    if search is None:
        return _spanning(low, high, top, symmetric)
    return _search_scales(weights, low, high, torch.as_tensor(top, dtype=torch.float32), symmetric, search)


def _spanning(low: torch.Tensor, high: torch.Tensor, top: int | torch.Tensor, symmetric: bool) -> Scales:
    """Return scale and zero point of grids that span [-low, high]."""
    scale = (low + high) / top
    # Below the smallest normal number a scale may be flushed to zero: such a group is all zeros.
    scale = torch.where(scale >= torch.finfo(torch.float32).tiny, scale, 1.0)
    middle = torch.ones_like(scale) * ((top + 1) // 2)
    return scale, middle if symmetric else torch.round(low / scale)


def _search_scales(
    weights: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    top: torch.Tensor,
    symmetric: bool,
    search: ScaleSearch,
) -> Scales:
    """Return, of each group, the widest of the grids with the least error (the `mse` of GPTQ's own code and GPTQModel).

    Candidates span (1 - i / steps) of the range, i = 0, 1, ..., as long as that is more than `smallest`.
    """
    scale, zero = _spanning(low, high, top, symmetric)
    unit, least = scale[..., None], torch.full_like(scale, torch.inf)
    for taken in range(round((1 - search.smallest) * search.steps)):
        share = 1 - taken / search.steps
        step, middle = _spanning(share * low, share * high, top, symmetric)
        multiples = torch.round(weights / step[..., None])
        levels = multiples.clamp_(-middle[..., None], (top - middle)[..., None]).mul_(step[..., None])
        # In units of the widest scale, the powers of very small errors stay within float32.
        error = levels.sub_(weights).div_(unit).abs_().pow_(search.norm).sum(-1)
        better = error < least
        scale, zero, least = (
            torch.where(better, new, old) for new, old in ((step, scale), (middle, zero), (error, least))
        )
    return scale, zero


def quantize(weights: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, top: int) -> torch.Tensor:
    """Return the nearest codes, uint8, ties to the even multiple of the scale; `scale` and `zero` broadcast."""
    codes = (weights.to(torch.float32) / scale).round_().add_(zero).clamp_(0, top)
    return codes.to(torch.int16).to(torch.uint8)  # on a CPU PyTorch makes bytes of floats one by one


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
