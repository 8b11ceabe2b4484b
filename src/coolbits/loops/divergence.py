"""When a trajectory counts as diverged."""

import math
from dataclasses import dataclass

from coolbits.study.recipes.training import Divergence


@dataclass(frozen=True)
class LossHistory:
    """The loss of the first update and those of the last few: what the rule of divergence looks at."""

    first: float | None = None
    recent: tuple[float, ...] = ()

    def after(self, loss: float, window: int) -> "LossHistory":
        """Return the history with one more loss, the last `window` of them kept."""
        first = loss if self.first is None else self.first
        return LossHistory(first, (*self.recent, loss)[-window:])


def has_diverged(rule: Divergence, history: LossHistory, grad_norm: float) -> bool:
    """Say whether the update that `history` ends with diverged.

    It did if its loss or its gradient is not finite, or if the mean of the last `window_steps` losses exceeds
    `loss_factor` times the first one. A window that is not yet full decides nothing: one high loss is a spike.
    """
    if not history.recent:
        return False
    if not math.isfinite(history.recent[-1]) or not math.isfinite(grad_norm):
        return True
    full = len(history.recent) == rule.window_steps
    return full and math.fsum(history.recent) / rule.window_steps > rule.loss_factor * (history.first or math.inf)
