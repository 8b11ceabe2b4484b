"""The section `finetuning` of the study file, as a person writes it."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from coolbits.study.recipes.base import HubId, Recipe
from coolbits.study.recipes.finetuning import LossOn, Template
from coolbits.study.recipes.training import Divergence, Optimizer, Precision
from coolbits.study.units import PERCENT_SCHEMA, Tokens, parse_length


def _share(value: Any) -> Any:
    share = parse_length(value)
    if isinstance(share, int) and share:
        raise ValueError(f"{value!r} is no share of the run; write a percentage below 100 (3%)")
    return float(share)


Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1}, PERCENT_SCHEMA]}),
]


class HubStart(Recipe):
    """A pretrained model of the Hugging Face hub; the study's `data.tokenizer` must be its own."""

    id: HubId = Field(description="for example meta-llama/Llama-3.2-3B")
    revision: str = Field("main", description="a commit makes the study reproducible; a branch moves")
    parameters: int = Field(gt=0, description="weights, tied ones once; compared with the model that is loaded")
    tokens: Tokens = Field(description="tokens of its pretraining, for the tables")


class StartChoice(Recipe):
    """What is fine-tuned: the last checkpoint of every trajectory that ends a run, or a model of the hub."""

    run: str | None = Field(None, description="a pretraining run of this study")
    tokens: Tokens | None = Field(None, description="of `run`, only trajectories that end at so many tokens; null: all")
    hub: HubStart | None = None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.run is None) == (self.hub is None):
            raise ValueError("a start is either `run`, a run of this study, or `hub`, a model of the hub")
        if self.tokens is not None and self.run is None:
            raise ValueError("`tokens` chooses among the ends of a `run`; a model of the hub has one")
        return self


class BuiltQuestionsChoice(Recipe):
    """Short questions and answers built from the documents of the study's corpus."""

    kind: Literal["embedded"] = "embedded"
    examples: int = Field(2000, gt=0, description="training conversations")
    validation_examples: int = Field(400, gt=0, description="validation conversations, from held-out documents")
    seed: int = Field(0, ge=0, description="of the choice among the corpus's sentences")


class FileConversationsChoice(Recipe):
    """Local JSON lines or parquet with a list of {role, content} under `messages`."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1, description="relative ones start at the study file's folder")
    examples: int = Field(gt=0, description="training conversations")
    validation_fraction: float = Field(0.02, gt=0, lt=1, description="share held out, by a hash of the conversation")
    validation_examples: int | None = Field(None, gt=0, description="held-out conversations scored at most; null: all")
    seed: int = Field(0, ge=0, description="of what is held out, and of the choice among the rest")


class HubConversationsChoice(Recipe):
    """A Hugging Face dataset with a column `messages`, streamed."""

    kind: Literal["hub"] = "hub"
    id: HubId = Field(description="for example allenai/tulu-3-sft-mixture")
    config: str | None = None
    split: str = "train"
    revision: str = Field("main", description="a commit makes the study reproducible; a branch moves")
    examples: int = Field(gt=0, description="training conversations")
    validation_fraction: float = Field(0.02, gt=0, lt=1, description="share held out, by a hash of the conversation")
    validation_examples: int | None = Field(None, gt=0, description="held-out conversations scored at most; null: all")
    seed: int = Field(0, ge=0, description="of what is held out, and of the choice among the rest")


class FinetuningSchedule(Recipe):
    """A learning-rate schedule over the whole fine-tuning."""

    kind: Literal["constant", "cosine", "linear"]
    warmup: Share = Field(0.0, description="share of the run, linear from 0")
    final_fraction: float = Field(0.0, ge=0, le=1, description="share of the peak rate left at the end")


class FinetuningChoice(Recipe):
    """Supervised fine-tuning, or a grid of it: any field may be a list."""

    start: StartChoice
    data: Annotated[
        BuiltQuestionsChoice | FileConversationsChoice | HubConversationsChoice, Field(discriminator="kind")
    ] = BuiltQuestionsChoice()
    template: Template = Field("plain", description="chat template; tokenizer: its own")
    loss_on: LossOn = Field("last", description="the assistant's last turn, or all of its turns")
    optimizer: Optimizer
    schedule: FinetuningSchedule
    peak_lr: float = Field(gt=0, description="highest learning rate of the schedule")
    epochs: int = Field(1, gt=0)
    batch_examples: int = Field(gt=0, description="conversations a step, one a row, padded to the longest")
    sequence_length: int = Field(gt=1, description="tokens of a conversation; what is behind them is cut off")
    seed: int = Field(0, ge=0, description="of the order of the conversations")
    precision: Precision = Field("float32", description="of matrix products")
    clip_norm: float = Field(1.0, gt=0, description="global L2 norm to which gradients are clipped")
    divergence: Divergence = Divergence()
    validations: int = Field(5, gt=0, description="validation losses taken after the one at the start, evenly spaced")
    log: int = Field(1, gt=0, description="a row of metrics each so many steps")
