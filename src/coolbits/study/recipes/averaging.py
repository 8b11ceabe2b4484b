"""Recipe of an average of checkpoints."""

from typing import Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe


class Average(Recipe):
    """Weights averaged in float32. Parents: `member.0`, `member.1`, ... (oldest first where they lie on one trunk).

    `soup` and `lawa` weigh members equally (a `lawa` has a full window, never a shorter one at the start), `merge`
    takes `weights`, `ema` folds members in order: average = decay * average + (1 - decay) * member.
    """

    kind: Literal["soup", "lawa", "merge", "ema"]
    members: int = Field(ge=2)
    weights: tuple[float, ...] | None = Field(None, description="of a merge: one a member, summing to 1")
    decay: float | None = Field(None, gt=0, lt=1, description="of an ema")
