"""Stochastic gradient descent with momentum and decoupled weight decay."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


def accumulate(momenta: list[Tensor], gradients: list[Tensor], momentum: float, nesterov: bool) -> list[Tensor]:
    """Update M <- momentum * M + G in place and return the directions: momentum * M + G with `nesterov`, else M."""
    torch._foreach_mul_(momenta, momentum)
    torch._foreach_add_(momenta, gradients)
    return list(torch._foreach_add(gradients, momenta, alpha=momentum)) if nesterov else momenta


@dataclass(frozen=True)
class SGD:
    """M <- momentum * M + G; w <- (1 - lr * weight_decay) w - lr * U, where U is M or, `nesterov`, momentum * M + G."""

    momentum: float
    nesterov: bool
    weight_decay: float

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
        directions = accumulate(states["momentum"], gradients, self.momentum, self.nesterov)
        torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        torch._foreach_add_(parameters, directions, alpha=-lr)
