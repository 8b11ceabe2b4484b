"""The section `pretrained` of the study file, as a person writes it."""

from typing import Annotated, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.pretrained import HubWeights
from coolbits.study.units import Tokens


class DirectoryChoice(Recipe):
    """A Hugging Face directory on this machine: config, safetensors, tokenizer."""

    kind: Literal["directory"]
    path: str = Field(description="a relative one starts at the study file's folder")


class GGUFChoice(Recipe):
    """A GGUF file on this machine; takes the package gguf."""

    kind: Literal["gguf"]
    path: str = Field(description="a relative one starts at the study file's folder")


class PretrainedChoice(Recipe):
    """A model that others trained, to be quantized and measured like the study's own."""

    source: Annotated[HubWeights | DirectoryChoice | GGUFChoice, Field(discriminator="kind")]
    parameters: int = Field(gt=0, description="weights, tied ones once; compared with the model that is read")
    tokens: Tokens = Field(description="tokens of its pretraining, for the tables")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="in which weights are kept on disk")
    end_of_text: str | None = Field(
        None,
        description="token behind each held-out document, for example <|endoftext|>; null: the tokenizer's eos_token",
    )
