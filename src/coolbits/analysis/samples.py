"""Random matrices that stand for momenta and gradients."""

from typing import assert_never

import torch
from torch import Tensor

from coolbits.study.recipes.analysis import Distribution

_RANK, _NOISE = 16, 0.1


def draw(distribution: Distribution, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return a random matrix, float32.

    `gaussian`: standard normal entries. `heavy-tailed`: Student's t with 3 degrees of freedom. `ill-conditioned`: the
    product of two normal matrices of rank 16, and normal noise of 0.1.
    """

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    match distribution:
        case "gaussian":
            matrix = normal(*shape)
        case "heavy-tailed":
            matrix = normal(*shape) / normal(3, *shape).square().mean(0).sqrt()
        case "ill-conditioned":
            matrix = normal(shape[0], _RANK) @ normal(_RANK, shape[1]) + _NOISE * normal(*shape)
        case _:
            assert_never(distribution)
    return matrix.float()  # [rows, columns]
