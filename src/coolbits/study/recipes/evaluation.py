"""Recipes of evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe


class Loss(Recipe):
    """Cross-entropy on held-out documents. Parent role `shards`.

    Windows of `sequence_length` tokens, evenly spaced over the validation tokens; sums are kept per document.
    """

    kind: Literal["loss"] = "loss"
    windows: int = Field(512, gt=0, description="windows scored; fewer if the validation set is smaller")
    sequence_length: int = Field(128, gt=1)
    batch_size: int = Field(16, gt=0, description="identity: a batch's shape can move the last bits of a score")
    precision: Literal["float32", "bfloat16"] = "float32"


class Tasks(Recipe):
    """Tasks scored by lm-eval; per-sample outputs are kept. Parent roles `tokenizer`, and `corpus` for built tasks."""

    kind: Literal["tasks"] = "tasks"
    tasks: tuple[str, ...] = Field(
        min_length=1, description="names of tasks, or of the sets in coolbits.evaluation.task_names"
    )
    shots: int = Field(0, ge=0)
    limit: int | None = Field(None, gt=0, description="documents a task; null: all")
    batch_size: int = Field(32, gt=0)
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"


Measure = Annotated[Loss | Tasks, Field(discriminator="kind")]


class Evaluation(Recipe):
    """One measure of one model. Parents: `model`, and `quantized` if its weights are to be replaced first."""

    measure: Measure
