from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coolbits.models.activations import OutlierRounding, Rounding, TokenRounding
from coolbits.models.layers import IntegerLayer, RotatedLayer, neighbouring_groups
from coolbits.models.quantized import QuantizedModel, apply_model, read_quantized, write_quantized
from coolbits.models.rotation import rotation

INPUTS = 24
ROUNDINGS = [TokenRounding(8, True), TokenRounding(4, False), OutlierRounding(6.0, "float16")]

numbers = st.floats(-1e4, 1e4, width=32)
tokens = st.lists(st.lists(numbers, min_size=8, max_size=8), min_size=1, max_size=5).map(torch.tensor)


def integer_layer(outputs: int, inputs: int) -> IntegerLayer:
    generator = torch.Generator().manual_seed(outputs)
    codes = torch.randint(0, 16, (outputs, inputs), generator=generator, dtype=torch.uint8)
    scales, zeros = torch.rand(outputs, 1, generator=generator), torch.full((outputs, 1), 8, dtype=torch.uint8)
    return IntegerLayer(4, True, codes, scales, zeros, neighbouring_groups(inputs, inputs))


def two_layers() -> tuple[nn.Sequential, dict[str, IntegerLayer]]:
    model = nn.Sequential(nn.Linear(INPUTS, 16), nn.GELU(), nn.Linear(16, 5))
    return model, {"0": integer_layer(16, INPUTS), "2": integer_layer(5, 16)}


def some_inputs() -> torch.Tensor:
    inputs = torch.randn(2, 10, INPUTS, generator=torch.Generator().manual_seed(9))
    inputs[0, 3, 5] = 11.0
    return inputs


@given(tokens, st.integers(4, 8), st.booleans())
def test_every_token_has_a_grid_of_its_own_and_the_nearest_level_of_it(
    inputs: torch.Tensor, bits: int, symmetric: bool
) -> None:
    found = TokenRounding(bits, symmetric).round(inputs)
    for token, rounded in zip(inputs.double(), found.double(), strict=True):
        low, high = min(0.0, float(token.min())), max(0.0, float(token.max()))
        span = 2 * max(-low, high) if symmetric else high - low
        step = span / (2**bits - 1)
        if step < 1e-36:  # float32 has few digits there, or none
            assert float(rounded.abs().max()) < 1e-33
            continue
        multiples = rounded / step
        assert float((multiples - multiples.round()).abs().max()) < 1e-3
        assert float((token - rounded).abs().max()) <= 0.501 * step  # even at both ends of the grid


@given(tokens, st.sampled_from([0.0, 1.0, 6.0]), st.sampled_from(["float16", "float32"]))
def test_columns_with_an_outlier_stay_and_the_others_are_rounded_by_what_is_no_outlier(
    inputs: torch.Tensor, threshold: float, precision: str
) -> None:
    found = OutlierRounding(threshold, precision).round(inputs)
    cast = inputs.to(getattr(torch, precision)).double()
    outliers = (cast.abs() >= threshold) & (threshold > 0)
    kept = outliers.any(0)
    assert torch.equal(found[:, kept], inputs[:, kept])
    for token, rounded, outlier in zip(cast, found.double(), outliers, strict=True):
        step = float(token[~outlier].abs().max()) / 127 if bool((~outlier).any()) else 0.0
        assert float((token - rounded)[~kept].abs().max() if bool((~kept).any()) else 0.0) <= 0.501 * step + 1e-30


def test_an_outlier_in_another_token_of_the_batch_spares_the_column() -> None:
    inputs = torch.tensor([[[0.31, 1.0]], [[6.0, 1.0]]])  # [batch, tokens, width]
    rounding = OutlierRounding(6.0, "float32")
    assert rounding.round(inputs)[0, 0, 0] == inputs[0, 0, 0]
    assert rounding.round(inputs[:1])[0, 0, 0] != inputs[0, 0, 0]


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)
def test_a_model_rounds_the_inputs_of_its_quantized_layers_and_a_file_keeps_how(
    tmp_path: Path, rounding: Rounding
) -> None:
    model, layers = two_layers()
    write_quantized(QuantizedModel(layers, activations=rounding), tmp_path)
    read = read_quantized(tmp_path)
    assert read.activations == rounding
    apply_model(model, read)
    hidden = nn.functional.linear(rounding.round(some_inputs()), layers["0"].weight(), model[0].bias)
    expected = nn.functional.linear(rounding.round(nn.functional.gelu(hidden)), layers["2"].weight(), model[2].bias)
    assert torch.equal(model(some_inputs()), expected)


def copied(model: nn.Sequential) -> nn.Sequential:
    return deepcopy(model)


@pytest.mark.parametrize("again", [lambda model: model, copied], ids=["the same model", "a copy"])
def test_what_is_applied_last_alone_counts(again: Callable[[nn.Sequential], nn.Sequential]) -> None:
    model, layers = two_layers()
    plain = QuantizedModel(layers)
    apply_model(model, plain)
    expected = model(some_inputs())
    for rounding in ROUNDINGS:
        apply_model(model, QuantizedModel(layers, activations=rounding))
    once = model(some_inputs())
    model = again(model)
    apply_model(model, QuantizedModel(layers, activations=ROUNDINGS[-1]))
    assert torch.equal(model(some_inputs()), once)
    assert not torch.equal(once, expected)
    apply_model(model, plain)
    assert torch.equal(model(some_inputs()), expected)


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)
def test_inputs_of_a_rotated_layer_are_rounded_in_the_rotated_basis(rounding: Rounding) -> None:
    layer = RotatedLayer(integer_layer(16, INPUTS), seed=3)
    model = nn.Sequential(nn.Linear(INPUTS, 16, bias=False))
    apply_model(model, QuantizedModel({"0": layer}, activations=rounding))
    turned = some_inputs().double() @ rotation(INPUTS, 3)
    expected = rounding.round(turned).double() @ layer.inner.weight().double().T
    torch.testing.assert_close(model(some_inputs()).double(), expected, rtol=1e-4, atol=1e-4)


def test_a_dtype_is_kept() -> None:
    model, layers = two_layers()
    apply_model(model, QuantizedModel(layers, activations=ROUNDINGS[0]))
    assert model.bfloat16()(some_inputs().bfloat16()).dtype == torch.bfloat16


def test_a_token_of_zeros_stays_zero() -> None:
    for rounding in ROUNDINGS:
        assert not rounding.round(torch.zeros(2, 3, 8)).any()
