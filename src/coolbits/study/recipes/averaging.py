"""Recipe of an average of checkpoints."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from coolbits.study.recipes.base import Recipe


class Average(Recipe):
    """Weights averaged in float64, kept in the members' dtype.

    Parents: `member.0`, `member.1`, ... (oldest first where they lie on one trunk). `soup` and `lawa` weigh members
    equally (a `lawa` has a full window, never a shorter one at the start), `merge` takes `weights`, `ema` folds members
    in order: average = decay * average + (1 - decay) * member.
    """

    kind: Literal["soup", "lawa", "merge", "ema"]
    members: int = Field(ge=2)
    weights: tuple[float, ...] | None = Field(None, description="of a merge: one a member, summing to 1")
    decay: float | None = Field(None, gt=0, lt=1, description="of an ema")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.weights is not None) != (self.kind == "merge"):
            raise ValueError(f"weights belong to a merge, and to nothing else; this is a {self.kind}")
        if (self.decay is not None) != (self.kind == "ema"):
            raise ValueError(f"decay belongs to an ema, and to nothing else; this is a {self.kind}")
        if self.weights is not None and len(self.weights) != self.members:
            raise ValueError(f"weights: {len(self.weights)} are given for {self.members} members")
        if self.weights is not None and not math.isclose(sum(self.weights), 1, abs_tol=1e-6):
            raise ValueError(f"weights must sum to 1, these sum to {sum(self.weights):g}")
        return self

    def shares(self) -> tuple[float, ...]:
        """Return the share of each member in the average, oldest first; they sum to 1."""
        if self.weights is not None:
            total = math.fsum(self.weights)  # of thirds written with seven digits it is not quite 1
            return tuple(weight / total for weight in self.weights)
        if self.decay is not None:
            first = self.decay ** (self.members - 1)
            return first, *((1 - self.decay) * self.decay**age for age in reversed(range(self.members - 1)))
        return (1 / self.members,) * self.members
