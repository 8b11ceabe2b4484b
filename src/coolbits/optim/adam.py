"""AdamW (Loshchilov & Hutter 2019) and AdamC, AdamW with corrected weight decay (Defazio 2025, arXiv 2506.02285)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adam:
    """Adam with decoupled weight decay: w <- (1 - lr * decay) w - lr * m̂ / (sqrt(v̂) + eps).

    `decay` is `weight_decay`, or with `corrected_by`, the peak learning rate, `weight_decay * lr / corrected_by`: then
    an update shrinks the weights by lr² / peak * weight_decay (AdamC).
    """

    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    corrected_by: float | None = None

    states: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def decay(self, lr: float) -> float:
        """Return the weight decay at the learning rate `lr`, which it is still multiplied with."""
        return self.weight_decay if self.corrected_by is None else self.weight_decay * lr / self.corrected_by

    def update(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: dict[str, list[Tensor]],
        step: Tensor,
        lr: float,
    ) -> None:
        """Make one update in place, by the kernel beneath `torch.optim.AdamW(fused=True)`: one pass over memory."""
        torch._fused_adamw_(
            parameters,
            gradients,
            states["exp_avg"],
            states["exp_avg_sq"],
            [],
            [step] * len(parameters),
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.decay(lr),
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
