"""Recipes of quantization methods: every knob, because "GPTQ" is not one thing."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.calibration import Calibration, Windows


class ScaleSearch(Recipe):
    """Shrink the range of each group step by step and keep the scale of least error |w - quantized|**norm."""

    norm: float = Field(2.4, gt=0, description="GPTQ's own code and GPTQModel: 2.4")
    steps: int = Field(100, gt=0, description="steps that the whole range is cut into")
    smallest: float = Field(0.2, gt=0, lt=1, description="every candidate spans a larger share of the range")


class Grid(Recipe):
    """The integer grid of a group of weights.

    `symmetric`: levels s * (q - 2**(bits-1)), q in 0..2**bits-1, scale s = 2 * max|w| / (2**bits - 1) (GPTQModel,
    compressed-tensors). Otherwise the levels span [min(w, 0), max(w, 0)] with an integer zero point.
    """

    bits: int = Field(ge=2, le=8)
    group_size: int | None = Field(
        None, gt=0, description="inputs that share a scale; null: the whole row (per channel)"
    )
    symmetric: bool = True
    search: ScaleSearch | None = Field(None, description="null: the largest weight decides the scale")

    @property
    def top(self) -> int:
        """The highest code."""
        return (1 << self.bits) - 1


class OnGrid(Recipe):
    """A method whose codes lie on an integer grid."""

    grid: Grid

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.grid.bits

    @property
    def group_size(self) -> int | None:
        """Inputs that share a scale; None for a whole row."""
        return self.grid.group_size


class RTN(OnGrid):
    """Round to nearest."""

    kind: Literal["rtn"] = "rtn"


class GPTQ(OnGrid):
    """GPTQ (Frantar et al. 2023)."""

    kind: Literal["gptq"] = "gptq"
    order: Literal["natural", "activation", "group-aware"] = Field(
        "activation",
        description="of the columns: by falling Hessian diagonal; as they stand; or falling inside each group and "
        "among groups, groups kept whole (GPTQModel's group-aware reordering)",
    )
    static_groups: bool = Field(
        False, description="scales from the weights as they were, groups of neighbouring columns"
    )
    scales: Literal["current", "block"] = Field(
        "current",
        description="what the scales of groups that are not static are found from: weights that carry every error so "
        "far; or as they were when the block of `block_size` columns began in which a group starts (GPTQ's own code, "
        "GPTQModel)",
    )
    damping: float = Field(0.01, gt=0, description="share of the mean diagonal added to the Hessian")
    damping_step: float = Field(0.0025, gt=0, description="added to the damping after each failed factorization")
    damping_attempts: int = Field(20, gt=0, description="factorizations tried before the module falls back to rtn")
    damping_accumulates: bool = Field(
        False,
        description="a failed factorization leaves its damping on the diagonal, and the next one adds its share of the "
        "mean that it finds there (GPTQModel up to 3.0); else each starts from the Hessian",
    )
    precision: Literal["float64", "float32"] = Field(
        "float64",
        description="of Hessians, their factors and the weights that carry errors; on a GPU inputs are summed in "
        "float32 in any case. GPTQ's own code, GPTQModel, llm-compressor: float32",
    )
    sequential: Literal["layer", "block", "none"] = Field(
        "layer",
        description="what a layer's Hessian is made from: inputs that come through all layers quantized before it "
        "(GPTQModel's `true_sequential`); through quantized blocks but unquantized layers of its own block (GPTQ's own "
        "code, llm-compressor); or through the unquantized model, which alone lets recipes share Hessians",
    )
    block_size: int = Field(128, gt=0, description="columns updated at once; only with `scales: block` does it matter")
    calibration: Calibration = Windows()


class AWQ(OnGrid):
    """Activation-aware weight quantization (Lin et al. 2024): inputs scaled by their activations, then clipped."""

    kind: Literal["awq"] = "awq"
    steps: int = Field(20, gt=1, description="scalings tried, one of which scales nothing")
    search: Literal["race", "exhaustive"] = Field(
        "race",
        description="how the best of them is found: race drops one once a sample of the calibration shows that it is "
        "worse, and may miss the best where few tokens decide or two are nearly equal; exhaustive sums every loss, as "
        "the libraries do",
    )
    largest_exponent: float = Field(
        1.0, gt=0, le=1, description="of the activations; the others lie evenly from 0. llm-awq: 0.95"
    )
    weighted: bool = Field(True, description="divide by the weights' mean magnitude, too (`duo_scaling`); llm-awq: no")
    shared_channels: bool = Field(
        True,
        description="scale inputs, too, that come from one channel of the producer (values that heads share, under one "
        "scale); llm-awq and llm-compressor: no",
    )
    clip: bool = Field(True, description="then shrink each group's range where it helps the output; llm-compressor: no")
    clip_steering: bool = Field(
        False, description="also of layers that decide only where attention looks: queries and keys; llm-awq: no"
    )
    clip_steps: int = Field(20, gt=0, description="steps that the whole range is cut into")
    smallest_clip: float = Field(
        0.55, gt=0, lt=1, description="share of the range that the smallest candidate spans at least; llm-awq: 0.55"
    )
    calibration: Calibration = Windows()


class HQQ(OnGrid):
    """Half-quadratic quantization (Badri and Shaji 2023): zero points, not integers, found without data."""

    kind: Literal["hqq"] = "hqq"
    norm: float = Field(0.7, gt=0, lt=1, description="p of the error's p-norm")
    beta: float = Field(10.0, gt=0, description="weight of the quadratic penalty at the start")
    growth: float = Field(1.0, ge=1, description="of beta a step; hqq's default solver leaves beta as it is")
    steps: int = Field(20, gt=0, description="at most; stops when the error no longer falls")
    round_start: bool | None = Field(
        None, description="start from zero points rounded to integers; null: of 4-bit codes alone, as hqq does"
    )

    @property
    def rounds_start(self) -> bool:
        """Whether the first zero points are integers."""
        return self.bits == 4 if self.round_start is None else self.round_start

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        if self.grid.symmetric or self.grid.search is not None:
            raise ValueError("grid: hqq finds zero points of its own; symmetric must be false and search null")
        return self


class Codebook(Recipe):
    """bitsandbytes' 4-bit types: the nearest of 16 values times a scale a block of the flattened weight."""

    kind: Literal["nf4", "fp4"]
    block_size: int = Field(64, gt=0, description="neighbouring weights of the flattened matrix that share a scale")
    double: bool = Field(False, description="store the scales themselves in 8 bits (QLoRA's double quantization)")

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 4

    @property
    def group_size(self) -> int:
        """Weights that share a scale."""
        return self.block_size


class Int8(Recipe):
    """LLM.int8() (Dettmers et al. 2022): 8-bit rows and 8-bit tokens, inputs with outliers kept as they are."""

    kind: Literal["int8"] = "int8"
    threshold: float = Field(6.0, ge=0, description="an input is an outlier from this magnitude on; 0: none is")
    precision: Literal["float16", "float32"] = Field(
        "float16", description="weights and inputs are cast to it before they are rounded; bitsandbytes: float16"
    )

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 8

    @property
    def group_size(self) -> None:
        """A row shares one scale."""
        return


Method = Annotated[RTN | GPTQ | AWQ | HQQ | Codebook | Int8, Field(discriminator="kind")]
CALIBRATED = (GPTQ, AWQ)
