"""The section `data` of the study file, as a person writes it."""

from typing import Annotated, Literal

from pydantic import Field

from coolbits.study.recipes.base import HubId, Recipe

# A token is stored in 32 bits at most.
MOST_ENTRIES = 1 << 32
SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".json.gz", ".parquet")


class EmbeddedCorpus(Recipe):
    """Public-domain English that ships with the package (26 MB)."""

    kind: Literal["embedded"] = "embedded"


class FileCorpus(Recipe):
    """Local text, JSON lines or parquet files."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1, description="relative ones start at the study file's folder")
    text_field: str = Field("text", description="the key or column that holds a document's text")


class HubCorpus(Recipe):
    """A Hugging Face dataset, streamed."""

    kind: Literal["hub"] = "hub"
    id: HubId = Field(description="for example HuggingFaceFW/fineweb-edu")
    config: str | None = Field(None, description="for example sample-10BT")
    split: str = "train"
    revision: str = Field("main", description="a commit makes the study reproducible; a branch moves")
    text_field: str = "text"
    documents: int | None = Field(None, gt=0, description="take only the first so many documents")
    files: tuple[str, ...] | None = Field(
        None, min_length=1, description="read these of the repository, for example [en/c4-train.00001-of-01024.json.gz]"
    )


class TrainedTokenizer(Recipe):
    """Byte-level BPE trained on the corpus."""

    kind: Literal["bpe"] = "bpe"
    vocabulary_size: int = Field(ge=257, le=MOST_ENTRIES, description="entries, end-of-text included")
    training_bytes: int = Field(50_000_000, gt=0, description="at most so many bytes of training text are read")


class HubTokenizer(Recipe):
    """A Hugging Face tokenizer by id."""

    kind: Literal["hub"] = "hub"
    id: HubId = Field(description="for example EleutherAI/gpt-neox-20b or gpt2")
    revision: str = "main"
    vocabulary_size: int | None = Field(
        None, gt=0, le=MOST_ENTRIES, description="rows of the model's embedding; known for those two"
    )


class LocalTokenizer(Recipe):
    """A tokenizer directory on this machine."""

    kind: Literal["local"] = "local"
    path: str = Field(description="a relative one starts at the study file's folder")
    vocabulary_size: int = Field(
        gt=0, le=MOST_ENTRIES, description="rows of the model's embedding: at least the tokenizer's entries"
    )


TokenizerChoice = TrainedTokenizer | HubTokenizer | LocalTokenizer


class Data(Recipe):
    """From documents to token shards."""

    corpus: Annotated[EmbeddedCorpus | FileCorpus | HubCorpus, Field(discriminator="kind")] = EmbeddedCorpus()
    tokenizer: Annotated[TokenizerChoice, Field(discriminator="kind")] | None = Field(
        None, description="for what is trained here; pretrained models use their own"
    )
    validation_fraction: float = Field(0.05, gt=0, lt=1, description="share of documents held out")
    salt: str = Field("coolbits", description="another salt holds out other documents")
    shard_tokens: int = Field(1 << 27, gt=0, description="tokens in a full shard")
