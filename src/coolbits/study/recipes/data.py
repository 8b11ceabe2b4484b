"""Recipes of the data stages: corpus, tokenizer, shards."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from coolbits.study.recipes.base import Recipe, one_digest_a_file


class EmbeddedSource(Recipe):
    """The corpus that ships with the package: public-domain English."""

    kind: Literal["embedded"] = "embedded"
    name: Literal["english"] = "english"
    sha256: str = Field(description="digest of the packed file")


class FileSource(Recipe):
    """Local text (.txt, one document a file), JSON lines (.jsonl, also .gz, .xz, .zst; .json.gz) or parquet files.

    Where they lie on this machine is in the job's `locations["files"]`, in the order of `names`.
    """

    kind: Literal["files"] = "files"
    names: tuple[str, ...] = Field(min_length=1, description="file names; the folders are no part of the identity")
    sha256: tuple[str, ...] = Field(description="digest of each file, in the order of `names`")
    text_field: str = Field("text", description="the key or column that holds a document's text")

    _one_digest_a_file = model_validator(mode="after")(one_digest_a_file)


class HubSource(Recipe):
    """A Hugging Face dataset, streamed."""

    kind: Literal["hub"] = "hub"
    id: str = Field(description="for example HuggingFaceFW/fineweb-edu")
    config: str | None = Field(None, description="for example sample-10BT")
    split: str = "train"
    revision: str = Field("main", description="a commit, tag or branch; a commit makes the recipe reproducible")
    text_field: str = "text"
    documents: int | None = Field(None, gt=0, description="take only the first so many documents")
    files: tuple[str, ...] | None = Field(
        None, min_length=1, description="read these files of the repository, in this order; null: those of the split"
    )


Source = Annotated[EmbeddedSource | FileSource | HubSource, Field(discriminator="kind")]


class Corpus(Recipe):
    """Documents after exact deduplication, each in `train` or `validation` by a hash of its text. No parents."""

    source: Source
    validation_fraction: float = Field(gt=0, lt=1, description="share of documents held out, by hash of the document")
    salt: str = Field("coolbits", description="text hashed before the document: another salt gives another split")


class TrainedTokenizer(Recipe):
    """Byte-level BPE trained on documents drawn evenly from the training split of a corpus (parent role `corpus`)."""

    kind: Literal["bpe"] = "bpe"
    vocabulary_size: int = Field(ge=257, description="entries, end-of-text included")
    training_bytes: int = Field(50_000_000, gt=0, description="bytes of training text, or all there is if that is less")


class HubTokenizer(Recipe):
    """A Hugging Face tokenizer by id, for example EleutherAI/gpt-neox-20b or gpt2."""

    kind: Literal["hub"] = "hub"
    id: str
    revision: str = "main"


class LocalTokenizer(Recipe):
    """A tokenizer directory, as `save_pretrained` writes it: all of its files that a tokenizer is read from.

    Where it lies is in the job's `locations["tokenizer"]`.
    """

    kind: Literal["local"] = "local"
    names: tuple[str, ...] = Field(min_length=1, description="tokenizer.json, its config, chat templates and the like")
    sha256: tuple[str, ...] = Field(description="digest of each file, in the order of `names`")

    _one_digest_a_file = model_validator(mode="after")(one_digest_a_file)


class PretrainedTokenizer(Recipe):
    """That of a pretrained model (parent role `model`)."""

    kind: Literal["pretrained"] = "pretrained"
    end_of_text: str | None = Field(
        None, description="the token behind each document; null: the tokenizer's `eos_token`, which may end a turn"
    )


Tokenizer = Annotated[
    TrainedTokenizer | HubTokenizer | LocalTokenizer | PretrainedTokenizer, Field(discriminator="kind")
]


class TokenizerRecipe(Recipe):
    """A tokenizer, saved so that `AutoTokenizer.from_pretrained` opens it.

    Parent `corpus` only if trained here, `model` only if that of a pretrained model.
    """

    tokenizer: Tokenizer


class Shards(Recipe):
    """Token shards of both splits. Parents: `corpus`, `tokenizer`."""

    shard_tokens: int = Field(
        1 << 27, gt=0, description="a shard ends with the document that brings it to so many tokens"
    )
