"""The section `quantizers` of the study file, as a person writes it."""

from typing import Annotated, Literal

from pydantic import Field

from coolbits.study.data_choices import FileCorpus, HubCorpus
from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.calibration import RandomTokens, Windows
from coolbits.study.recipes.ptq import Quantized


class DocumentsChoice(Recipe):
    """Whole documents, each a sequence, the first of local files or of a dataset; paper A takes 1,024 of C4."""

    kind: Literal["documents"]
    source: Annotated[FileCorpus | HubCorpus, Field(discriminator="kind")]
    sequences: int = Field(1024, gt=0, description="documents, the first of the source")
    sequence_length: int = Field(2048, gt=1, description="tokens of a document at most")


class Quantizer(Quantized):
    """A PTQ recipe, every knob or a preset."""

    calibration: Annotated[Windows | DocumentsChoice | RandomTokens, Field(discriminator="kind")] | None = Field(
        None, description="what the model is shown; null: what the method says"
    )
