"""Recipes of post-training quantization: a method, and what is quantized by it."""

from typing import Self

from pydantic import Field, model_validator

from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.methods import AWQ, GPTQ, RTN, Int8, Method


class Rotation(Recipe):
    """Inputs of every layer rotated by a randomized Hadamard matrix before quantization (QuaRot, Ashkboos et al. 2024).

    The layer's function stays: what is stored is W Q, and the inputs meet Q, too.
    """

    seed: int = Field(0, ge=0, description="of the signs")


class Activations(Recipe):
    """Inputs of the quantized layers rounded to integers, one scale a token, while the model runs."""

    bits: int = Field(8, ge=4, le=8)
    symmetric: bool = Field(True, description="else with a zero point")


class Quantized(Recipe):
    """A model's decoder-block linear layers on a grid. Parents: `model`, and `calibration` if calibrated.

    Embeddings are never touched, the output head only if asked.
    """

    method: Method
    rotation: Rotation | None = None
    activations: Activations | None = None
    head: bool = Field(
        False,
        description="also quantize the output head; if it is tied to the embedding, it gets codes of its own, and the "
        "embedding keeps its weights",
    )
    save_model: bool = Field(False, description="also write the dequantized model as a Hugging Face directory")

    @model_validator(mode="after")
    def _rotation_fits(self) -> Self:
        if self.rotation is not None and not isinstance(self.method, RTN | GPTQ):
            raise ValueError(f"rotation: the method is {self.method.kind}; rotations go with rtn and gptq alone")
        return self

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if self.head and isinstance(self.method, AWQ):
            raise ValueError(
                "head: awq takes its scales from what stands before a layer in its block, and the head is in none; "
                "leave head out, or take another method"
            )
        return self

    @model_validator(mode="after")
    def _activations_fit(self) -> Self:
        own = isinstance(self.method, Int8)
        if own and self.activations is not None:
            raise ValueError("activations: the method int8 has a rule of its own for them; leave them out")
        if self.save_model and (own or self.activations is not None):
            raise ValueError(
                "save_model: a plain model cannot round activations; leave it out with int8 or activations"
            )
        return self
