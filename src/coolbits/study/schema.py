"""The study file, as a person writes it: everything wanted, lengths in tokens, lists as grids."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from coolbits.study.data_choices import Data
from coolbits.study.execution import Execution, Threads
from coolbits.study.finetuning_choices import FinetuningChoice
from coolbits.study.pretrained_choices import PretrainedChoice
from coolbits.study.quantizer_choices import Quantizer
from coolbits.study.recipes.analysis import TheorySettings
from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.evaluation import Measure
from coolbits.study.recipes.training import DecayShape, Divergence, Optimizer, Precision
from coolbits.study.units import Length, Tokens
from coolbits.study.vision_choices import VisionRun

NAME = r"^[a-z0-9][a-z0-9_.-]*$"
MAX_NAME = 60
Name = Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]


class ModelChoice(Recipe):
    """A model by preset, with arguments of its Hugging Face config on top."""

    preset: str = Field(description="pythia-160m, gpt-162m, llama-130m, micro-neox, ...")
    config: dict[str, Any] = Field({}, description="arguments of the Hugging Face config that differ from the preset")


class ScheduleChoice(Recipe):
    """A learning-rate schedule, lengths in tokens or in percent of the run."""

    kind: Literal["constant", "cosine", "linear", "wsd"]
    warmup: Length = Field(description="length of the linear rise from 0")
    decay: Length | None = Field(None, description="length of the decay; wsd only")
    shape: DecayShape = Field("linear", description="shape of the decay; wsd only")
    final_fraction: float = Field(0.0, ge=0, le=1, description="share of the peak rate left at the end")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind != "wsd" and (self.decay is not None or "shape" in self.model_fields_set):
            key = "shape" if self.decay is None else "decay"
            raise ValueError(f"{key}: belongs to a wsd schedule; this is a {self.kind} one, so leave it out")
        if self.kind == "constant" and self.final_fraction:
            raise ValueError("final_fraction: a constant schedule never falls; leave it out, or add cooldowns")
        return self


class Saved(Recipe):
    """Which checkpoints are kept, besides the last one."""

    every: Tokens | None = Field(None, description="tokens between two checkpoints")
    at: tuple[Tokens, ...] = Field((), description="tokens at which a checkpoint is kept")


class CooldownChoice(Recipe):
    """Branches that leave a trunk and decay to `final_fraction` of the rate."""

    at: Tokens = Field(description="tokens at which the branch leaves the trunk; a list makes several branches")
    length: Tokens = Field(description="tokens of the decay")
    shape: DecayShape = "linear"
    final_fraction: float = Field(0.0, ge=0, le=1)
    data_seed: int | None = Field(None, ge=0, description="another order of the data from here on; null: the trunk's")
    checkpoints: Saved = Saved()


class TelemetryChoice(Recipe):
    """Measurements inside the optimizer during training."""

    every: Tokens = Field(description="tokens between two measurements")
    tensors: int = Field(6, gt=0, description="tensors measured, spread evenly over the model")


class Run(Recipe):
    """One pretraining run, or a grid of them: any field may be a list."""

    model: ModelChoice
    optimizer: Optimizer
    schedule: ScheduleChoice
    peak_lr: float = Field(gt=0, description="highest learning rate of the schedule")
    tokens: Tokens = Field(description="length of the run")
    seed: int = Field(0, ge=0, description="of the initial weights")
    data_seed: int | None = Field(None, ge=0, description="of the order of the data; null: the same as seed")
    sequence_length: int = Field(gt=1, description="tokens per sequence")
    batch_tokens: int = Field(gt=0, description="tokens per step")
    precision: Precision = Field("bfloat16", description="of matrix products")
    clip_norm: float = Field(1.0, gt=0, description="global L2 norm to which gradients are clipped")
    divergence: Divergence = Divergence()
    log: Tokens | None = Field(None, description="tokens between two rows of metrics; null: every ten steps")
    telemetry: TelemetryChoice | None = Field(None, description="measures the optimizer's states; null: none")
    checkpoints: Saved = Saved()
    cooldowns: tuple[CooldownChoice, ...] = Field((), description="branches; of a constant schedule only")


class Lawa(Recipe):
    """Averages along a trunk: the last `window` checkpoints, `every` so many tokens."""

    kind: Literal["lawa"] = "lawa"
    run: str
    window: int = Field(ge=2, description="checkpoints averaged")
    every: Tokens = Field(description="tokens between the members")
    checkpoints: Saved = Field(Saved(), description="where along the trunk an average is made, besides its end")


class Ema(Recipe):
    """Exponential averages along a trunk over the last `window` checkpoints."""

    kind: Literal["ema"] = "ema"
    run: str
    window: int = Field(ge=2, description="checkpoints folded in")
    every: Tokens = Field(description="tokens between the members")
    decay: float = Field(gt=0, lt=1)
    checkpoints: Saved = Saved()


class Soup(Recipe):
    """Uniform average of the last checkpoints of trajectories of one run that differ only in `over`."""

    kind: Literal["soup"] = "soup"
    run: str
    over: Literal["data_seed", "peak_lr", "seed"] = "data_seed"


class Merge(Recipe):
    """Weighted average of the same last checkpoints, in the order of the grid."""

    kind: Literal["merge"] = "merge"
    run: str
    over: Literal["data_seed", "peak_lr", "seed"] = "data_seed"
    weights: tuple[float, ...] = Field(min_length=2, description="one per member, summing to 1")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not math.isclose(sum(self.weights), 1, abs_tol=1e-6):
            raise ValueError(f"weights: should sum to 1; found a sum of {sum(self.weights):g}")
        return self


AverageChoice = Annotated[Lawa | Ema | Soup | Merge, Field(discriminator="kind")]


class EvaluationChoice(Recipe):
    """A measure, and what it is applied to."""

    measure: Measure
    quantizers: tuple[str, ...] | Literal["all"] | None = Field(
        None, description="names; the full-precision model is always measured; null: all, for curvature none"
    )
    of: Literal["every", "final"] = Field("every", description="every kept checkpoint, or only the last of each")
    stride: Tokens | None = Field(None, description="only checkpoints at multiples of so many tokens, and the last")
    seeds: tuple[int, ...] | Literal["all"] = Field("all", description="of initial weights")
    runs: tuple[str, ...] | Literal["all"] = "all"
    averages: tuple[str, ...] | Literal["all"] = "all"


class FigureChoice(Recipe):
    """A figure of coolbits.figures and arguments of its drawing."""

    figure: str
    options: dict[str, Any] = Field({}, description="arguments of the figure, for example quantizers: [gptq-w3]")


class MemoryChoice(Recipe):
    """Bytes of optimizer states, from real optimizers without storage."""

    kind: Literal["memory"] = "memory"
    models: tuple[str, ...] = Field(min_length=1, description="presets: gpt-162m, micro-neox, ...")
    optimizers: tuple[str, ...] = Field(min_length=1, description="names: AdamW-32, Muon-8L, Muon-8L+AdamW-8L, ...")
    vocabulary_size: int = Field(50_257, gt=0, description="of every model; 50,257 is gpt2's")
    sequence_length: int = Field(2048, gt=1, description="positions, for models that learn them")


class AnalysisChoice(Recipe):
    """An analysis that trains nothing, and the runs whose last checkpoints lend it their optimizer states."""

    analysis: Annotated[MemoryChoice | TheorySettings, Field(discriminator="kind")]
    runs: tuple[str, ...] | Literal["all"] = Field((), description="whose last checkpoints theory looks at")


class Study(Recipe):
    """One study: everything that is to be made."""

    study: Name = Field(description="names the study's own results: results/figure/NAME/...")
    data: Data | None = Field(None, description="for all models of text; a study of vision alone has none")
    defaults: dict[str, Any] = Field({}, description="fields of every run; a run overrides any of them")
    runs: dict[Name, tuple[Run, ...]] = Field({}, description="pretraining runs; lists are grids")
    pretrained: dict[Name, PretrainedChoice] = Field({}, description="models that others trained")
    vision: dict[Name, tuple[VisionRun, ...]] = Field({}, description="trainings of image classifiers; lists are grids")
    averages: dict[Name, AverageChoice] = Field({}, description="averages of checkpoints")
    finetuning: dict[Name, tuple[FinetuningChoice, ...]] = Field({}, description="fine-tunings; lists are grids")
    quantizers: dict[Name, Quantizer] = Field({}, description="PTQ recipes")
    evaluations: dict[Name, EvaluationChoice] = Field({}, description="what is measured")
    analyses: dict[Name, AnalysisChoice] = Field({}, description="one of each kind: memory, theory")
    figures: dict[Name, FigureChoice] = Field({}, description="figures to draw")
    claims: tuple[str, ...] | Literal["all"] = Field((), description="claims to judge")
    bootstrap_samples: int = Field(1000, gt=0, description="resamples behind the intervals in tables")
    execution: Execution = Execution()
    threads: Threads = Threads()
