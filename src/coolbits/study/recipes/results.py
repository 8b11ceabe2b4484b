"""Recipes of a study's own results: tables, figures, claims."""

from typing import Any, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe

TABLE = "table.parquet"  # the rows of a table, or of an analysis
DOCUMENTS = "documents.parquet"  # beside those of losses: what each row gives each document
# Columns that describe a trajectory, and those that describe one measured model, with their types in the table.
# Every row has all of them. `states` is "32", "8L" or "8D", and "8L+8D" of Muon beside an 8-bit AdamW. `family` names
# the trajectory at the root: the trunk, for a trunk and its branches.
TRAJECTORY_COLUMNS = {
    "run": "str",
    "trajectory": "str",
    "family": "str",
    "model": "str",
    "parameters": "Int64",
    "optimizer": "str",
    "states": "str",
    "beta2": "float64",
    "weight_decay": "float64",
    "schedule": "str",
    "peak_lr": "float64",
    "seed": "Int64",
    "branch_tokens": "Int64",
    "budget_tokens": "Int64",
    "decay_tokens": "Int64",
    "decay_shape": "str",
    "final_fraction": "float64",
}
# Values of `schedule` that decay from the warmup to the end of the run: its budget says how long the decay is.
WHOLE_SCHEDULES = ("cosine", "linear")
# Of an image classifier instead; `images` names the set it was trained on.
VISION_COLUMNS = {
    "run": "str",
    "trajectory": "str",
    "images": "str",
    "model": "str",
    "optimizer": "str",
    "states": "str",
    "beta2": "float64",
    "weight_decay": "float64",
    "schedule": "str",
    "peak_lr": "float64",
    "seed": "Int64",
    "epochs": "Int64",
    "batch_images": "Int64",
}
MODEL_COLUMNS = {
    "step": "Int64",
    "tokens": "Int64",
    "lr": "float64",
    "phase": "str",
    "source": "str",
    "average": "str",
    "window": "Int64",
    "final": "boolean",
    "quantizer": "str",
    "method": "str",
    "bits": "Int64",
    "group_size": "Int64",
}


# Measures of models by their names, and what else there are tables of.
Content = Literal[
    "loss",
    "tasks",
    "curvature",
    "prediction",
    "landscape",
    "metrics",
    "ledger",
    "telemetry",
    "vision",
    "finetuning",
]
# What claims are judged on: tables of measures, and the two of analyses.
Evident = Literal["loss", "tasks", "curvature", "vision", "finetuning", "memory", "theory"]


class Row(Recipe):
    """One measurement: which evaluation (a parent role) and the recipe fields that become its columns.

    `columns` holds every name of `TRAJECTORY_COLUMNS` and, save for `metrics` and `telemetry`, of `MODEL_COLUMNS`; null
    where a name does not apply. Other scalar columns are kept as they are.
    """

    evaluation: str = Field(description="parent role of the evaluation, checkpoint (metrics) or quantized (ledger)")
    base: str | None = Field(None, description="parent role of the same measure on the full-precision model")
    columns: dict[str, Any] = Field(description="scalar columns: run, step, tokens, schedule, peak_lr, seed, ...")


class Table(Recipe):
    """A tidy table: one row a measurement.

    Parents: the evaluations; for `metrics` and `telemetry` the last checkpoint of each trajectory; for
    `ledger` the quantized models; for `vision` the classifiers; for `finetuning` the fine-tuned models.
    """

    content: Content
    rows: tuple[Row, ...]
    bootstrap_samples: int = Field(1000, gt=0)
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(0, ge=0)


class Figure(Recipe):
    """One figure, drawn from tables and analyses (parent roles: their names in `coolbits.figures.names`)."""

    figure: str = Field(description="a name of coolbits.figures")
    options: dict[str, Any] = Field({}, description="arguments of the figure's drawing function")
    scale: str = Field(description="'micro: 0.2M parameters, 12M tokens, 2 seeds': printed in the caption")


class Claims(Recipe):
    """Verdicts on claims, from tables and analyses (parent roles: the names of `Evident`; others are not read)."""

    claims: tuple[str, ...] = Field(min_length=1)
    scale: str
    samples: int = Field(10_000, gt=0, description="bootstrap samples of an interval")
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(0, ge=0)
