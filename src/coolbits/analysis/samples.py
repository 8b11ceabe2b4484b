"""Random matrices that stand for momenta and gradients."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from coolbits.study.recipes.analysis import Distribution

_RANK, _NOISE = 16, 0.1


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from, in the words of its rows; `step` is that of the checkpoint, or of a made-up run."""

    source: str
    seed: int
    step: int
    trajectory: str | None = None
    optimizer: str | None = None
    tensor: str | None = None


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
