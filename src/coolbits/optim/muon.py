"""Muon (Jordan et al. 2024): momentum, orthogonalized, for matrices inside the blocks."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, assert_never

import torch
from torch import Tensor

from coolbits.optim.newton_schulz import orthogonalize
from coolbits.optim.sgd import accumulate

Scale = Literal["match_rms_adamw", "spectral"]

# Equal-shaped matrices are orthogonalized together, so many elements at once, to bound the memory that takes.
_BATCH_ELEMENTS = 1 << 25


def update_scale(scale: Scale, outputs: int, inputs: int) -> float:
    """Return the factor of an orthogonalized update: its root mean square then does not depend on the shape.

    `match_rms_adamw`: 0.2 * sqrt(max(outputs, inputs)), about the RMS of AdamW's updates (Liu et al. 2025, Moonlight).
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
    Newton-Schulz iteration.
    """

    momentum: float
    nesterov: bool
    newton_schulz_steps: int
    scale: Scale
    weight_decay: float
    transposed: bool = False
    dtype: torch.dtype = torch.bfloat16

    states: ClassVar[tuple[str, ...]] = ("momentum",)

    def update(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: dict[str, list[Tensor]],
        step: Tensor,
        lr: float,
    ) -> None:
        """Make one update in place; matrices of one shape go through Newton-Schulz as one batch."""
        directions = accumulate(states["momentum"], gradients, self.momentum, self.nesterov)
        torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        for batch in _equal_shapes(directions):
            orthogonal = orthogonalize(
                torch.stack([directions[index] for index in batch]), self.newton_schulz_steps, self.dtype
            )  # [batch, m, n]
            outputs, inputs = reversed(orthogonal.shape[1:]) if self.transposed else orthogonal.shape[1:]
            torch._foreach_add_(
                [parameters[index] for index in batch],
                list(orthogonal.unbind()),
                alpha=-lr * update_scale(self.scale, outputs, inputs),
            )


def _equal_shapes(matrices: list[Tensor]) -> Iterator[list[int]]:
    """Yield the indices of matrices of one shape, in pieces of bounded size."""
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for index, matrix in enumerate(matrices):
        by_shape[matrix.shape].append(index)
    for shape, indices in by_shape.items():
        count = max(1, _BATCH_ELEMENTS // shape.numel())
        yield from (indices[start : start + count] for start in range(0, len(indices), count))
