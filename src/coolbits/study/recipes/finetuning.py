"""Recipes of supervised fine-tuning: tokenized conversations, and a model trained on their answers."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from coolbits.study.recipes.base import Recipe, one_digest_a_file
from coolbits.study.recipes.training import Divergence, Optimizer, Precision, Schedule


class BuiltQuestions(Recipe):
    """Short questions and answers made from the documents of parent `corpus`: each split's from its own documents."""

    kind: Literal["embedded"] = "embedded"
    examples: int = Field(gt=0, description="training conversations, exactly so many")
    validation_examples: int = Field(gt=0, description="validation conversations, at most so many")
    seed: int = Field(ge=0, description="of the choice of sentences")


class FileConversations(Recipe):
    """Local JSON lines or parquet, as a `FileSource`, with a key `messages`: a list of {role, content}.

    Where a file lies on this machine is in the job's `locations`, under its digest.
    """

    kind: Literal["files"] = "files"
    names: tuple[str, ...] = Field(min_length=1, description="file names; the folders are no part of the identity")
    sha256: tuple[str, ...] = Field(description="digest of each file, in the order of `names`")
    examples: int = Field(gt=0, description="training conversations, exactly so many")
    validation_fraction: float = Field(gt=0, lt=1, description="share held out, by a hash of the conversation")
    validation_examples: int | None = Field(None, gt=0, description="held-out conversations scored at most; null: all")
    seed: int = Field(ge=0, description="of what is held out, and of the choice among the rest")

    _one_digest_a_file = model_validator(mode="after")(one_digest_a_file)


class HubConversations(Recipe):
    """A Hugging Face dataset with a column `messages`, streamed."""

    kind: Literal["hub"] = "hub"
    id: str
    config: str | None = None
    split: str
    revision: str
    examples: int = Field(gt=0, description="training conversations, exactly so many")
    validation_fraction: float = Field(gt=0, lt=1, description="share held out, by a hash of the conversation")
    validation_examples: int | None = Field(None, gt=0, description="held-out conversations scored at most; null: all")
    seed: int = Field(ge=0, description="of what is held out, and of the choice among the rest")


ConversationSource = Annotated[BuiltQuestions | FileConversations | HubConversations, Field(discriminator="kind")]
Template = Literal["plain", "tulu", "tokenizer"]
LossOn = Literal["last", "all"]


class Conversations(Recipe):
    """Conversations as tokens, with a mask of those that are learned. Parents: `tokenizer`; `corpus` if built from it.

    `loss_on`: the assistant's last turn alone, or all of its turns; always with the token that ends a turn.
    """

    source: ConversationSource
    template: Template = Field(description="tokenizer: its own; plain and tulu: those of coolbits.finetuning.templates")
    loss_on: LossOn
    sequence_length: int = Field(gt=1, description="tokens of a conversation; what is behind them is cut off")


class HubModel(Recipe):
    """A pretrained model of the Hugging Face hub. Its tokenizer is the parent `tokenizer`."""

    id: str
    revision: str
    parameters: int = Field(gt=0, description="weights, tied ones once; compared with the model that is loaded")


class Finetuned(Recipe):
    """A model after supervised fine-tuning: one conversation a row, padded to the longest of the batch.

    Parents: `conversations`, and `start`, a checkpoint, or `tokenizer` where the start is a model of the hub.
    """

    hub: HubModel | None = Field(None, description="where training starts; null: at the parent `start`")
    optimizer: Optimizer
    schedule: Schedule
    peak_lr: float = Field(gt=0)
    seed: int = Field(ge=0, description="of the order of the conversations")
    steps: int = Field(gt=0, description="updates; the last batch of an epoch may be short")
    batch_examples: int = Field(gt=0, description="conversations a step")
    validate_steps: int = Field(gt=0, description="the validation loss is taken each so many updates, before and after")
    precision: Precision = Field(description="of matrix products; weights are float32")
    clip_norm: float = Field(gt=0, description="global L2 norm to which gradients are clipped")
    divergence: Divergence
    log_steps: int = Field(gt=0, description="a row of metrics every so many steps")
