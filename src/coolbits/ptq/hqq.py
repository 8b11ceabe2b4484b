"""Half-quadratic quantization (Badri and Shaji 2023): zero points, real numbers, that suit most weights of a group.

A few large errors are allowed so that the many become small: the error is measured by its p-norm with p < 1. Which
errors are large does not depend on the weights: by the library's p and beta they are those above 0.17, of which
language models have next to none, and what remains are zero points that give each group its mean back.

As hqq 0.2.8 solves it by default (`optimize_weights_proximal_legacy`, axis 1), but in float32 on every device; on a
GPU, the library solves in float16.
"""

import torch

from coolbits.models.layers import IntegerLayer, neighbouring_groups
from coolbits.ptq.grids import group_size_for
from coolbits.study.recipes.methods import HQQ

# The library's: a group that spans less is left at one code a unit; more codes a unit are not given to any.
_NARROW, _DENSEST = 1e-4, 2e4


def quantize_half_quadratic(weight: torch.Tensor, method: HQQ) -> IntegerLayer:
    """Quantize a weight [outputs, inputs], float32, to scales that span each group and zero points found by iteration.

    Raises:
        CoolbitsError: if the group size does not divide the inputs.
    """
    outputs, inputs = weight.shape
    size, top = group_size_for(method.grid, inputs), method.grid.top
    groups = weight.reshape(-1, size)
    density, zeros = _start(groups, method)
    zeros = _solve(groups, density, zeros, method)
    codes = _codes(groups, density, zeros, top).to(torch.uint8).view(outputs, inputs)
    scales, zeros = (each.view(outputs, -1) for each in (1 / density, zeros))
    return IntegerLayer(method.bits, False, codes, scales, zeros, neighbouring_groups(inputs, size).to(weight.device))


def _start(groups: torch.Tensor, method: HQQ) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes a unit of weight, and zero points, [groups, 1] each, of the grids from least to largest weight."""
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    density = torch.where(high - low <= _NARROW, 1.0, method.grid.top / (high - low)).clamp_(max=_DENSEST)
    zeros = -low * density
    return density, zeros.round_() if method.rounds_start else zeros


def _solve(groups: torch.Tensor, density: torch.Tensor, zeros: torch.Tensor, method: HQQ) -> torch.Tensor:
    """Return better zero points, [groups, 1].

    Half of the problem splits the error into a sparse part, by a proximal step, and a rest; the other half moves each
    zero point to the mean of that rest. The iteration stops when the mean error of all groups no longer falls, and
    keeps the zero points of the step that saw it, as the library does.
    """
    beta, least = method.beta, torch.inf
    for _ in range(method.steps):
        codes = _codes(groups, density, zeros, method.grid.top)
        error = groups - (codes - zeros) / density
        sparse = _shrink(error, beta, method.norm)
        zeros = (codes - (groups - sparse) * density).mean(1, keepdim=True)
        mean = float(error.abs().mean())
        if mean >= least:
            break
        beta, least = beta * method.growth, mean
    return zeros


def _codes(groups: torch.Tensor, density: torch.Tensor, zeros: torch.Tensor, top: int) -> torch.Tensor:
    return torch.round(groups * density + zeros).clamp_(0, top)


def _shrink(error: torch.Tensor, beta: float, norm: float) -> torch.Tensor:
    """Return argmin over z of |z|**norm + beta / 2 * (z - error)**2, nearly: the generalized soft threshold."""
    size = error.abs()
    return (size - (1 / beta) * size.pow(norm - 1)).clamp_(min=0) * error.sign()
