"""What a format can hold is known before the work: the forecast agrees with what the quantizers then make."""

import pytest
import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.files import load_model
from coolbits.models.quantized import QuantizedModel, weight_matrix
from coolbits.ptq.checkpoint import Request, quantize_model, rounding_of
from coolbits.ptq.export.foresight import check_foreseen
from coolbits.ptq.export.model import FORMATS
from coolbits.ptq.head import quantized_linears
from coolbits.ptq.presets import quantizer_preset
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.methods import GPTQ, Grid
from coolbits.study.recipes.ptq import Quantized

GRID = Grid(bits=3, group_size=32)
RECIPES = {name: quantizer_preset(name) for name in ("rtn-w3-g32", "rtn-w5-channel", "rtn-w8a8", "gptq-w3-channel")} | {
    "hqq": quantizer_preset("hqq-w4-g32"),
    "nf4": quantizer_preset("bnb-nf4"),
    "int8": quantizer_preset("bnb-int8"),
    "rotated": quantizer_preset("rotated-rtn-w3-g32"),
    "awq": quantizer_preset("awq-w4-g32"),
    "activation order": Quantized(method=GPTQ(grid=GRID)),
    "static groups": Quantized(method=GPTQ(grid=GRID, static_groups=True)),
    "group-aware order": Quantized(method=GPTQ(grid=GRID, order="group-aware")),
    "head": Quantized(method=GPTQ(grid=GRID, order="group-aware"), head=True),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_forecast_is_what_comes(recipe, models, tmp_path):
    model = load_model(models("llama"))
    shapes = {name: weight_matrix(module).shape for name, module in quantized_linears(model, recipe.head).items()}
    write_tokens(
        Tokens.of_equal_length(torch.randint(96, (16, 32), generator=torch.Generator().manual_seed(0))), tmp_path
    )
    (made,) = quantize_model([Request(recipe, tmp_path)], model)
    layers = {name: result.layer for name, result in made.results.items()}
    result = QuantizedModel(layers, made.replaced, rounding_of(recipe))
    for form in FORMATS.values():
        try:
            check_foreseen(recipe, shapes, form)
            foreseen = True
        except CoolbitsError:
            foreseen = False
        assert foreseen == (form.why_not(result) is None), form.name
