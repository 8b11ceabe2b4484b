"""Recipes of a study's own results: tables, figures, claims."""

from typing import Any, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe


class Row(Recipe):
    """One measurement: which evaluation (a parent role) and the recipe fields that become its columns."""

    evaluation: str = Field(description="parent role of the evaluation")
    base: str | None = Field(None, description="parent role of the same measure on the full-precision model")
    columns: dict[str, Any] = Field(description="scalar columns: run, step, tokens, schedule, peak_lr, seed, ...")


class Table(Recipe):
    """A tidy table: one row a measurement. Parents: the evaluations, or the checkpoints for `metrics`."""

    content: Literal["loss", "tasks", "metrics", "ledger"]
    rows: tuple[Row, ...]
    bootstrap_samples: int = Field(1000, gt=0)
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(0, ge=0)


class Figure(Recipe):
    """One figure, drawn from tables (parent roles `loss`, `tasks`, `metrics`)."""

    figure: str = Field(description="a name of coolbits.figures")
    options: dict[str, Any] = Field({}, description="arguments of the figure's drawing function")
    scale: str = Field(description="'micro: 0.2M parameters, 12M tokens, 2 seeds': printed in the caption")


class Claims(Recipe):
    """Verdicts on claims, from the tables (parent roles `loss`, `tasks`, `metrics`)."""

    claims: tuple[str, ...] = Field(min_length=1)
    scale: str
    samples: int = Field(10_000, gt=0, description="bootstrap samples of an interval")
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(0, ge=0)
