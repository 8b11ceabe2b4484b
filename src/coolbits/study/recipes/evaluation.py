"""Recipes of evaluation."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from coolbits.study.recipes.base import Recipe


class Loss(Recipe):
    """Cross-entropy on held-out documents. Parent role `shards`.

    Windows of `sequence_length` tokens, evenly spaced over the validation tokens; sums are kept per document.
    """

    kind: Literal["loss"] = "loss"
    windows: int = Field(512, gt=0, description="windows scored; fewer if the validation set is smaller")
    sequence_length: int = Field(128, gt=1, description="tokens; in a study with runs, by default theirs")
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


class OnWindows(Recipe):
    """What is measured of the mean loss on windows of the validation tokens, in float32. Parent role `shards`."""

    windows: int = Field(100, gt=0, description="evenly spaced windows; fewer if the validation set is smaller")
    sequence_length: int = Field(128, gt=1, description="tokens; in a study with runs, by default theirs")
    batch_size: int = Field(16, gt=0, description="identity, as of loss; fewer windows take less memory")


class Curvature(OnWindows):
    """Trace and largest eigenvalues of the Hessian of the loss, in all trainable weights (paper A, section 6)."""

    kind: Literal["curvature"] = "curvature"
    probes: int = Field(32, gt=0, description="random vectors of the trace (Hutchinson), at most")
    trace_tolerance: float = Field(0.01, ge=0, description="enough: standard error as a share of the trace")
    eigenvalues: int = Field(20, gt=0, description="number of them, from the largest")
    tolerance: float = Field(1e-3, gt=0, description="residual as a share of the largest eigenvalue")
    iterations: int = Field(100, gt=0, description="Lanczos vectors at most; all are kept in memory")
    seed: int = Field(0, ge=0, description="of random directions")


class Prediction(OnWindows):
    """Loss increase by quantization, and its second-order expansion. Parent role `quantized` besides."""

    kind: Literal["prediction"] = "prediction"
    probes: int = Field(8, gt=0, description="random errors of the same size, for comparison")
    seed: int = Field(0, ge=0, description="of random directions")


class Landscape(OnWindows):
    """Loss on the plane through a checkpoint, the one before it and its quantized form (paper A, Figure 8).

    Parent roles `quantized` and `previous` besides. The grid reaches from `-margin` to `1 + margin` times the extent.
    """

    kind: Literal["landscape"] = "landscape"
    points: int = Field(15, gt=1, description="of the grid along each axis")
    margin: float = Field(0.5, ge=0, description="share of the extent that the grid reaches beyond it on either side")
    extent: tuple[PositiveFloat, PositiveFloat] | None = Field(
        None, description="distances in the space of weights, alike for all models; null: the model's own to the others"
    )


# Measures of a quantized model beside the full-precision one: one evaluation looks at both.
Comparison = Prediction | Landscape
Measure = Annotated[Loss | Tasks | Curvature | Prediction | Landscape, Field(discriminator="kind")]


class Evaluation(Recipe):
    """One measure of one model. Parents: `model`, and `quantized` if its weights are to be replaced, or compared."""

    measure: Measure
