"""When a trajectory counts as diverged, and since when."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from coolbits.study.recipes.training import Divergence

# Of the first loss: what is below is nearly nothing, and many times as much may be one example that is not learned.
_LEARNED = 0.1


@dataclass(frozen=True)
class LossHistory:
    """What the rule of divergence looks at.

    That is the loss at the start, of the first update where no other is given, those of the last few updates, and the
    lowest mean of `relapse_steps` losses so far.
    """

    first: float | None = None
    recent: tuple[float, ...] = ()
    lowest: float = math.inf

    def after(self, loss: float, rule: Divergence) -> "LossHistory":
        """Return the history with one more loss; as many of the last are kept as the rule looks at."""
        first = loss if self.first is None else self.first
        recent = (*self.recent, loss)[-max(rule.window_steps, rule.relapse_steps) :]
        return LossHistory(first, recent, min(self.lowest, _mean(recent, rule.relapse_steps)))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        lowest = self.lowest if math.isfinite(self.lowest) else None
        return {"first_loss": self.first, "recent_losses": self.recent, "lowest_mean": lowest}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back what `to_json` gave; other keys are left alone."""
        lowest = math.inf if value["lowest_mean"] is None else value["lowest_mean"]
        return cls(value["first_loss"], tuple(value["recent_losses"]), lowest)


def diverged_since(rule: Divergence, history: LossHistory, grad_norm: float, step: int) -> int | None:
    """Return the update since which a training has diverged, None if it has not; `step` is the one `history` ends with.

    It diverged with that one if its loss or its gradient is not finite. Or if the mean of the last
    `window_steps` losses exceeds `loss_factor` times the first one, or that of the last `relapse_steps` so many times
    the lowest it ever was, or a tenth of the first loss if that is more: since the first of them that is above that
    limit. Windows that are not yet full decide nothing: one high loss is a spike.
    """
    if not history.recent or history.first is None:
        return None
    if not math.isfinite(history.recent[-1]) or not math.isfinite(grad_norm):
        return step
    best = max(history.lowest, _LEARNED * history.first)
    for steps, level in ((rule.window_steps, history.first), (rule.relapse_steps, best)):
        limit, window = rule.loss_factor * level, history.recent[-steps:]
        if math.inf > _mean(window, steps) > limit:
            return step - steps + next(place for place, loss in enumerate(window, start=1) if loss > limit)
    return None


def _mean(losses: Sequence[float], steps: int) -> float:
    """Return the mean of the last `steps` losses; inf as long as there are fewer."""
    return math.fsum(losses[-steps:]) / steps if len(losses) >= steps else math.inf
