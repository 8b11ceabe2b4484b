"""Recipes of post-training quantization: every knob, because "GPTQ" is not one thing."""

from typing import Annotated, Literal

from pydantic import Field

from coolbits.study.recipes.base import Recipe


class Calibration(Recipe):
    """Sequences of training tokens shown to the model to gather Hessians. Parent role `shards`."""

    sequences: int = Field(128, gt=0)
    sequence_length: int = Field(128, gt=1)
    seed: int = Field(0, ge=0, description="of the choice of sequences")


class Grid(Recipe):
    """The integer grid of a group of weights.

    `symmetric`: levels s * (q - 2**(bits-1)), q in 0..2**bits-1, scale s = 2 * max|w| / (2**bits - 1) (GPTQModel).
    Otherwise the levels span [min(w, 0), max(w, 0)] with an integer zero point.
    """

    bits: int = Field(ge=2, le=8)
    group_size: int | None = Field(
        None, gt=0, description="inputs that share a scale; null: the whole row (per channel)"
    )
    symmetric: bool = True

    @property
    def top(self) -> int:
        """The highest code."""
        return (1 << self.bits) - 1


class RTN(Recipe):
    """Round to nearest."""

    kind: Literal["rtn"] = "rtn"
    grid: Grid


class GPTQ(Recipe):
    """GPTQ (Frantar et al. 2023)."""

    kind: Literal["gptq"] = "gptq"
    grid: Grid
    order: Literal["natural", "activation"] = Field(
        "activation", description="columns by falling Hessian diagonal, or as they stand"
    )
    static_groups: bool = Field(
        False, description="scales from the weights as they were, groups of neighbouring columns"
    )
    damping: float = Field(0.01, gt=0, description="share of the mean diagonal added to the Hessian")
    damping_step: float = Field(0.0025, gt=0, description="added to the damping after each failed factorization")
    damping_attempts: int = Field(20, gt=0, description="factorizations tried before the module falls back to rtn")
    true_sequential: bool = Field(
        True, description="modules see the outputs of those already quantized; else all Hessians come from one pass"
    )
    block_size: int = Field(128, gt=0, description="columns updated at once; changes speed, not the method")
    calibration: Calibration = Calibration()


Method = Annotated[RTN | GPTQ, Field(discriminator="kind")]


class Quantized(Recipe):
    """A model's decoder-block linear layers on a grid. Parents: `model`, and `shards` if calibrated.

    Embeddings and head are never touched.
    """

    method: Method
    save_model: bool = Field(False, description="also write the dequantized model as a Hugging Face directory")
