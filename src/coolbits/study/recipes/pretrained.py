"""Recipes of pretrained models: what others trained, as a plain Hugging Face directory."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from coolbits.study.recipes.base import HubId, Recipe, one_digest_a_file


class HubWeights(Recipe):
    """A model of the Hugging Face hub, from its safetensors. Code that it may bring is never run."""

    kind: Literal["hub"] = "hub"
    id: HubId = Field(description="for example HuggingFaceTB/SmolLM2-135M")
    revision: str = Field("main", description="a commit makes the study reproducible; a branch moves")


class DirectoryWeights(Recipe):
    """A Hugging Face directory with safetensors and the tokenizer's files; code that it may hold is never run.

    Where it lies on this machine is in the job's `locations`, under `pretrained/` and the node's name.
    """

    kind: Literal["directory"] = "directory"
    names: tuple[str, ...] = Field(min_length=1, description="config, weights and tokenizer")
    sha256: tuple[str, ...] = Field(description="digest of each file, in the order of `names`")

    _one_digest_a_file = model_validator(mode="after")(one_digest_a_file)


class GGUFWeights(Recipe):
    """A GGUF file with weights, config and tokenizer; weights in blocks are dequantized. Located like a directory."""

    kind: Literal["gguf"] = "gguf"
    sha256: str = Field(description="digest of the file")


class Pretrained(Recipe):
    """A pretrained model with its tokenizer. No parents."""

    source: Annotated[HubWeights | DirectoryWeights | GGUFWeights, Field(discriminator="kind")]
    parameters: int = Field(gt=0, description="weights, tied ones once; compared with the model that is read")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="in which weights are kept on disk")
