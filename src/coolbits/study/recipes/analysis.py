"""Recipes of analyses: what an optimizer's states cost, and what rounding them does to one update."""

from typing import Annotated, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.training import Model, Optimizer

Distribution = Literal["gaussian", "heavy-tailed", "ill-conditioned"]


class NamedModel(Recipe):
    """A model and the name that its rows carry."""

    name: str
    model: Model


class NamedOptimizer(Recipe):
    """An optimizer and the name that its rows carry."""

    name: str
    optimizer: Optimizer


class Memory(Recipe):
    """Bytes of the states of each optimizer on each model, counted on tensors without storage. No parents."""

    kind: Literal["memory"] = "memory"
    models: tuple[NamedModel, ...] = Field(min_length=1)
    optimizers: tuple[NamedOptimizer, ...] = Field(min_length=1)


class TheorySettings(Recipe):
    """Paper B's three theorems, checked on random momenta, and on those of checkpoints."""

    kind: Literal["theory"] = "theory"
    rows: int = Field(256, gt=1, description="of a random matrix")
    columns: int = Field(
        512, gt=1, description="of a random matrix; 512 x 1024 takes eight times the time of 256 x 512"
    )
    seeds: int = Field(3, gt=0, description="random matrices of each distribution")
    distributions: tuple[Distribution, ...] = ("gaussian", "heavy-tailed", "ill-conditioned")
    block_size: int = Field(2048, gt=0, description="elements that share a scale")
    adam_block_sizes: tuple[int, ...] = Field((64, 256, 1024, 2048, 8192), description="for AdamW's second moment")
    newton_schulz_steps: tuple[int, ...] = Field((5,), min_length=1, description="numbers of steps; Muon's own first")
    beta1: float = Field(0.9, ge=0, lt=1, description="of AdamW on random gradients")
    beta2: float = Field(0.95, ge=0, lt=1, description="of AdamW on random gradients")
    eps: float = Field(1e-8, gt=0, description="of AdamW on random gradients")
    momentum: float = Field(0.95, ge=0, lt=1, description="of SGD and Muon on random gradients")
    tensors: int = Field(6, gt=0, description="matrices of a checkpoint, spread evenly over those it has")


class Source(Recipe):
    """A checkpoint whose states are looked at: the parent's role, and what its rows say of it."""

    role: str
    run: str
    trajectory: str
    optimizer: str


class Theory(TheorySettings):
    """The checks, and the checkpoints (parents) that lend their states."""

    sources: tuple[Source, ...] = ()


class Analysis(Recipe):
    """One analysis."""

    analysis: Annotated[Memory | Theory, Field(discriminator="kind")]
