"""Muon (Jordan et al. 2024): momentum, orthogonalized, for matrices inside the blocks."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, assert_never

import torch
from torch import Tensor

from coolbits.optim.newton_schulz import Gram, gram, orthogonalize
from coolbits.optim.sgd import accumulate

Scale = Literal["match_rms_adamw", "spectral"]

# Matrices are orthogonalized together so many elements at a time, which bounds the memory that it takes.
_BATCH_ELEMENTS = 1 << 25


def update_scale(scale: Scale, outputs: int, inputs: int) -> float:
    """Return the factor of an orthogonalized update, whose singular values are near 1.

    `match_rms_adamw`: 0.2 * sqrt(max(outputs, inputs)). The root mean square of an update is then 0.2 whatever its
    shape, about that of AdamW's (Liu et al. 2025, Moonlight).
    `spectral`: sqrt(outputs / inputs), the spectral norm that keeps feature learning alike across widths (dion).
    """
    match scale:
        case "match_rms_adamw":
            return 0.2 * math.sqrt(max(outputs, inputs))
        case "spectral":
            return math.sqrt(outputs / inputs)
        case _:
            assert_never(scale)


@dataclass(frozen=True)
class Muon:
    """M <- momentum * M + G; w <- (1 - lr * weight_decay) w - lr * scale * NS(U), U as for SGD.

    `transposed` says that the weights are stored as [inputs, outputs], as GPT-2's are. `dtype` is that of the
    Newton-Schulz iteration, and `gram` computes its products X Xᵀ.
    """

    momentum: float
    nesterov: bool
    newton_schulz_steps: int
    scale: Scale
    weight_decay: float
    transposed: bool = False
    dtype: torch.dtype = torch.bfloat16
    gram: Gram = gram

    states: ClassVar[tuple[str, ...]] = ("momentum",)

    def update(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: dict[str, list[Tensor]],
        step: Tensor,
        lr: float,
    ) -> None:
        """Make one update in place."""
        momenta = states["momentum"]

        def directions(batch: list[int]) -> list[Tensor]:
            batched = [momenta[index] for index in batch], [gradients[index] for index in batch]
            return accumulate(*batched, self.momentum, self.nesterov)

        self.apply(parameters, directions, lr)

    def apply(self, weights: list[Tensor], directions: Callable[[list[int]], list[Tensor]], lr: float) -> None:
        """Update the weights by the directions U that are asked for, by place, as they are needed.

        Matrices of one shape, or its transpose, pass Newton-Schulz as one batch. Weights and directions are whole
        matrices: who keeps them in shards must gather them first, as each row of an update depends on all others.
        """
        torch._foreach_mul_(weights, 1 - lr * self.weight_decay)
        for batch in _batches(weights):
            stack = torch.stack([_wide(direction) for direction in directions(batch)])  # [batch, m, n], m <= n
            orthogonal = orthogonalize(stack, self.newton_schulz_steps, self.dtype, self.gram)
            for index, update in zip(batch, orthogonal, strict=True):
                weight = weights[index]
                _wide(weight).add_(update, alpha=-lr * self._scale_of(weight))

    def _scale_of(self, weight: Tensor) -> float:
        outputs, inputs = reversed(weight.shape) if self.transposed else weight.shape
        return update_scale(self.scale, outputs, inputs)


def _wide(matrix: Tensor) -> Tensor:
    """Return the matrix, or its transpose if it is tall: a view."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def _batches(matrices: list[Tensor]) -> Iterator[list[int]]:
    """Yield the indices of matrices of one shape, the transposed one included, in pieces of bounded size."""
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        by_shape[_wide(matrix).shape].append(index)
    for shape, indices in by_shape.items():
        count = max(1, _BATCH_ELEMENTS // shape.numel())
        yield from (indices[start : start + count] for start in range(0, len(indices), count))
