"""What a trajectory remembers beside its weights and the optimizer's tensors, and its metrics."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

import pandas as pd

from coolbits.data.batches import NO_BATCHES
from coolbits.loops.divergence import LossHistory
from coolbits.training.throughput import Row

_DTYPES = {
    "step": "int64",
    "tokens": "int64",
    "loss": "float64",
    "lr": "float64",
    "grad_norm": "float64",
    "weight_norm": "float64",
    "data_digest": "str",
}


@dataclass(frozen=True)
class Update:
    """One update as the metrics tell it: update `step`, from 1, takes the weights of step - 1 to those of step.

    `loss` (nats a token) and `grad_norm` (before clipping) are those of its batch at the weights of step - 1.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    data_digest: str


@dataclass
class Memory:
    """Where a trajectory stands.

    `step` counts updates done, `data_digest` rolls over the batches used. `rows` are the metrics of the logged updates
    since the trajectory's start, `paces` their tokens a second. `diverged_step` is the update since which the training
    has diverged, if it has.
    """

    step: int = 0
    data_digest: str = NO_BATCHES
    history: LossHistory = field(default_factory=LossHistory)
    last: Update | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    paces: list[Row] = field(default_factory=list)
    diverged_step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all but the metrics as plain JSON values."""
        return {
            "step": self.step,
            "data_digest": self.data_digest,
            "last_update": None if self.last is None else asdict(self.last),
        } | self.history.to_json()

    @classmethod
    def from_json(cls, value: dict[str, Any], rows: list[dict[str, Any]], paces: list[Row]) -> Self:
        """Read back what `to_json` gave, with metrics and pace of the logged updates."""
        history = LossHistory.from_json(value)
        last = None if value["last_update"] is None else Update(**value["last_update"])
        return cls(value["step"], value["data_digest"], history, last, rows, paces)

    def branch(self) -> "Memory":
        """Return the memory of a branch that starts here: its metrics are its own, all else goes on."""
        return Memory(self.step, self.data_digest, self.history, self.last)


def metrics_row(update: Update, batch_tokens: int, weight_norm: float) -> dict[str, Any]:
    """Return the row of metrics of an update, `weight_norm` being that after it."""
    return {"tokens": update.step * batch_tokens, "weight_norm": weight_norm} | asdict(update)


def metrics_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of metrics as the frame that is written: fixed columns and types, also when there are no rows."""
    return pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)
