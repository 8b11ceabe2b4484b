"""Recipes of what calibrated quantizers show to a model: tokens, made once and shared."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.data import FileSource, HubSource


class Windows(Recipe):
    """Windows of the training tokens of a study, drawn without repetition. Parent role `shards`."""

    kind: Literal["windows"] = "windows"
    sequences: int = Field(128, gt=0)
    sequence_length: int = Field(128, gt=1, description="tokens; in a study with runs, by default theirs")
    seed: int = Field(0, ge=0, description="of the choice of sequences")


class Documents(Recipe):
    """Whole documents, each a sequence, cut at `sequence_length`; paper A takes 1,024 of C4. Parent `tokenizer`."""

    kind: Literal["documents"]
    source: Annotated[FileSource | HubSource, Field(discriminator="kind")]
    sequences: int = Field(1024, gt=0, description="documents, the first of the source")
    sequence_length: int = Field(2048, gt=1, description="tokens of a document at most")


class RandomTokens(Recipe):
    """Tokens drawn evenly from the vocabulary: what calibration gives when it knows no language. Parent `tokenizer`."""

    kind: Literal["random"]
    sequences: int = Field(128, gt=0)
    sequence_length: int = Field(128, gt=1, description="tokens; in a study with runs, by default theirs")
    seed: int = Field(0, ge=0)


def _windows(value: Any) -> Any:
    return {"kind": "windows"} | value if isinstance(value, dict) else value


# Without `kind`: windows.
Calibration = Annotated[
    Annotated[Windows | Documents | RandomTokens, Field(discriminator="kind")], BeforeValidator(_windows)
]


class CalibrationSet(Recipe):
    """The tokens that calibrated methods show to a model, made once and shared by them."""

    calibration: Calibration
