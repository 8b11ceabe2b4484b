import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.int8 import quantize_rows
from coolbits.ptq.passes import check_layers
from coolbits.study.recipes.methods import RTN, Grid, Int8
from coolbits.study.recipes.ptq import Activations, Quantized

weights = st.lists(st.lists(st.floats(-6e4, 6e4, width=16), min_size=5, max_size=5), min_size=1, max_size=4)


@given(weights.map(torch.tensor))
def test_a_row_has_the_nearest_of_255_levels_that_span_it_evenly(weight: torch.Tensor) -> None:
    layer = quantize_rows(weight, Int8())
    step = weight.double().abs().amax(1, keepdim=True) / 127
    assert ((weight.double() - layer.weight().double()).abs() <= 0.5001 * step + 1e-30).all()
    assert int((layer.codes.int() - 128).abs().max()) <= 127
    assert layer.symmetric and (layer.zeros == 128).all()  # so none is stored


@given(weights.map(torch.tensor))
def test_quantizing_twice_changes_nothing(weight: torch.Tensor) -> None:
    once = quantize_rows(weight, Int8()).weight()
    assert torch.equal(quantize_rows(once, Int8()).codes, quantize_rows(weight, Int8()).codes)
    torch.testing.assert_close(quantize_rows(once, Int8()).weight(), once, rtol=1e-6, atol=0)


def test_weights_are_cast_to_the_precision_first() -> None:
    weight = torch.tensor([[127.0, 0.49999]])  # in float16 half a level, which goes to the even one; the level is 1
    near = torch.tensor([[127.0, 1.5002]])  # float16 has 1.5 there
    assert quantize_rows(near, Int8()).codes[0, 1] == 128 + 2
    assert quantize_rows(torch.tensor([[127.0, 2.5002]]), Int8()).codes[0, 1] == 128 + 2
    assert quantize_rows(torch.tensor([[127.0, 2.5002]]), Int8(precision="float32")).codes[0, 1] == 128 + 3
    assert quantize_rows(weight, Int8(precision="float32")).codes[0, 1] == 128


def test_a_weight_beyond_float16_is_refused_by_name() -> None:
    linears = {"blocks.0.dense": nn.Linear(4, 4)}
    with torch.no_grad():
        linears["blocks.0.dense"].weight[0, 0] = -1e5
    with pytest.raises(CoolbitsError, match=r"blocks\.0\.dense holds a weight of 1e\+05, too large for float16"):
        check_layers(linears, Int8())
    check_layers(linears, Int8(precision="float32"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": Int8(), "activations": Activations()}, "activations: the method int8 has a rule of its own"),
        ({"method": Int8(), "save_model": True}, "save_model: a plain model cannot round"),
        (
            {"method": RTN(grid=Grid(bits=8)), "activations": Activations(), "save_model": True},
            "save_model: a plain model cannot round",
        ),
    ],
    ids=["two rules", "int8 saved", "activations saved"],
)
def test_recipes_that_contradict_themselves_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Quantized(**settings)
