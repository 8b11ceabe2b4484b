"""Execution: what may change how fast and where a result is made, and never what it is."""

from typing import Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe


class Execution(Recipe):
    """Settings that stay out of every fingerprint."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where tensors live; auto: cuda if there is one")
    micro_batch_sequences: int | None = Field(
        None, gt=0, description="sequences in one forward pass; null: the whole batch"
    )
    training_jobs: Literal["trajectory", "family", "run"] = Field(
        "trajectory",
        description="one job makes a trajectory, a trunk with its branches, or a run with all seeds and points of its "
        "grid (fewer starts of Python)",
    )
    measuring_jobs: Literal["family", "run"] = Field(
        "family", description="one job averages, quantizes or scores a trunk with its branches, or a whole run"
    )
    compile: bool = Field(False, description="torch.compile the step of pretraining, where that can be done")
    tokenizer_workers: int = Field(2, gt=0, description="processes that tokenize")
    state_every_seconds: float = Field(
        60.0,
        gt=0,
        description="what a killed job goes on from is written this often: states, and blocks that are quantized",
    )
    longest_minutes: int | None = Field(
        None,
        gt=0,
        description="a cluster is asked for at most so much time for a job, which goes on when it is tried again; "
        "null: three times the estimate, without a cap",
    )


class Threads(Recipe):
    """Threads a job of each kind asks Snakemake for."""

    data: int = Field(2, gt=0)
    training: int = Field(1, gt=0)
    measuring: int = Field(1, gt=0, description="averages, quantization, evaluation")
