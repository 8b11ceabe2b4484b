"""Whether a format will be able to hold what a recipe makes, known before anything is quantized."""

from collections.abc import Mapping

import torch

from coolbits.models.layers import IntegerLayer, Layer, RotatedLayer, neighbouring_groups
from coolbits.models.quantized import QuantizedModel
from coolbits.ptq.checkpoint import rounding_of
from coolbits.ptq.codebooks import quantize_by_codebook
from coolbits.ptq.export.formats import Format
from coolbits.ptq.export.model import check_expressible
from coolbits.study.recipes.methods import GPTQ, HQQ, Codebook, OnGrid
from coolbits.study.recipes.ptq import Quantized


def check_foreseen(recipe: Quantized, shapes: Mapping[str, torch.Size], form: Format) -> None:
    """Refuse a recipe whose result the format cannot hold; `shapes` are outputs and inputs of layers that it fits.

    Raises:
        CoolbitsError: saying why, and which formats can.
    """
    layers = {name: _outline(recipe, shape) for name, shape in shapes.items()}
    check_expressible(QuantizedModel(layers, activations=rounding_of(recipe)), form, "--export")


def _outline(recipe: Quantized, shape: torch.Size) -> Layer:
    """Return a layer as the recipe will make it, save for its values."""
    outputs, inputs = shape
    method = recipe.method
    if isinstance(method, Codebook):
        return quantize_by_codebook(torch.zeros(1, 1), method)
    size = method.group_size or inputs
    groups = inputs // size
    scattered = isinstance(method, GPTQ) and method.order == "activation" and not method.static_groups
    layer = IntegerLayer(
        bits=method.bits,
        symmetric=method.grid.symmetric if isinstance(method, OnGrid) else True,
        codes=torch.zeros((), dtype=torch.uint8).expand(outputs, inputs),
        scales=torch.ones(()).expand(outputs, groups),
        zeros=torch.zeros((), dtype=torch.float32 if isinstance(method, HQQ) else torch.uint8).expand(outputs, groups),
        group_index=torch.arange(inputs, dtype=torch.int32) % groups
        if scattered
        else neighbouring_groups(inputs, size),
    )
    return layer if recipe.rotation is None else RotatedLayer(layer, recipe.rotation.seed)
