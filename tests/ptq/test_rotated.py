"""Rotated quantization: the layer's function stays, and outliers cost less."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from coolbits.models.files import load_model
from coolbits.models.layers import IntegerLayer, RotatedLayer
from coolbits.models.quantized import apply_quantized
from coolbits.ptq.checkpoint import build_quantized
from coolbits.ptq.gptq import gptq
from coolbits.ptq.ledger import Entry, Result, output_loss, relative_error
from coolbits.ptq.presets import quantizer_preset
from coolbits.ptq.rotated import restore_basis, rotate_hessian, rotate_weight
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import AWQ, GPTQ, RTN, Grid
from coolbits.study.recipes.ptq import Quantized, Rotation

Layer = Callable[[int, int, int], tuple[torch.Tensor, torch.Tensor]]
ROTATION = Rotation(seed=1)


def gptq_rotated(weight: torch.Tensor, hessian: torch.Tensor, recipe: GPTQ) -> Result:
    made = gptq(rotate_weight(weight, ROTATION), rotate_hessian(hessian, ROTATION), recipe)
    return restore_basis(made, ROTATION)


def test_without_a_rotation_nothing_changes(layer: Layer) -> None:
    weight, hessian = layer(4, 16, 0)
    made = gptq(weight, hessian, GPTQ(grid=Grid(bits=3)))
    assert rotate_weight(weight, None) is weight
    assert rotate_hessian(hessian, None) is hessian
    assert restore_basis(made, None) is made


@pytest.mark.parametrize("inputs", [16, 24])
def test_rotated_inputs_and_weights_give_the_same_outputs(layer: Layer, inputs: int) -> None:
    weight, hessian = layer(4, inputs, 0)
    rotated = rotate_weight(weight, ROTATION).double()
    outputs = rotated @ rotate_hessian(hessian, ROTATION) @ rotated.T
    torch.testing.assert_close(outputs, weight.double() @ hessian @ weight.double().T, rtol=1e-6, atol=1e-6)


def test_at_eight_bits_the_weight_comes_back(layer: Layer) -> None:
    weight, hessian = layer(4, 32, 0)
    made = gptq_rotated(weight, hessian, GPTQ(grid=Grid(bits=8)))
    assert isinstance(made.layer, RotatedLayer)
    assert relative_error(weight, made.layer) < 0.02


def test_the_entry_holds_in_either_basis(layer: Layer) -> None:
    weight, hessian = layer(6, 32, 1)
    made = gptq_rotated(weight, hessian, GPTQ(grid=Grid(bits=3, group_size=16)))
    assert output_loss(weight.double() - made.layer.weight(), hessian) == pytest.approx(made.entry.proxy_loss, rel=1e-4)
    assert relative_error(weight, made.layer) == pytest.approx(made.entry.relative_error, rel=1e-4)


@pytest.mark.parametrize("bits", [3, 4])
def test_it_helps_where_weights_have_outliers(layer: Layer, bits: int) -> None:
    weight, hessian = layer(16, 64, 2)
    weight[:, ::32] *= 10
    recipe = GPTQ(grid=Grid(bits=bits, group_size=32))
    plain, rotated = gptq(weight, hessian, recipe).entry, gptq_rotated(weight, hessian, recipe).entry
    assert rotated.relative_error < 0.8 * plain.relative_error
    rounded = round_to_nearest(rotate_weight(weight, ROTATION), recipe.grid)
    assert relative_error(rotate_weight(weight, ROTATION), rounded) < 0.8 * relative_error(
        weight, round_to_nearest(weight, recipe.grid)
    )


def test_a_restored_layer_keeps_its_entry_and_its_codes(layer: Layer) -> None:
    weight, hessian = layer(6, 32, 3)
    inner = gptq(rotate_weight(weight, ROTATION), rotate_hessian(hessian, ROTATION), GPTQ(grid=Grid(bits=4)))
    outer = restore_basis(inner, ROTATION)
    assert isinstance(outer.layer, RotatedLayer)
    assert outer.entry is inner.entry
    assert isinstance(outer.entry, Entry)
    assert isinstance(inner.layer, IntegerLayer)
    assert torch.equal(outer.layer.inner.codes, inner.layer.codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("by_gptq", [False, True], ids=["rtn", "gptq"])
def test_quantizing_twice_changes_nothing_on_a_grid_that_is_found_again(layer: Layer, bits: int, by_gptq: bool) -> None:
    """Asymmetric grids are, since they span the smallest to the largest weight of the rotated group."""
    weight, hessian = layer(6, 32, 4)
    grid = Grid(bits=bits, group_size=16, symmetric=False)
    once = RotatedLayer(round_to_nearest(rotate_weight(weight, ROTATION), grid), ROTATION.seed)
    if by_gptq:
        twice = gptq_rotated(once.weight(), hessian, GPTQ(grid=grid, order="natural")).layer
    else:
        twice = RotatedLayer(round_to_nearest(rotate_weight(once.weight(), ROTATION), grid), ROTATION.seed)
    assert isinstance(twice, RotatedLayer)
    assert torch.equal(twice.inner.codes, once.inner.codes)
    torch.testing.assert_close(twice.weight(), once.weight(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["rotated-rtn-w8-g16", "rotated-gptq-w8-g16"])
@pytest.mark.parametrize("sequential", ["none", "block", "layer"])
def test_a_rotated_checkpoint_loads_back_and_answers_as_the_model(
    checkpoint: Path, calibration: Path, tmp_path: Path, name: str, sequential: str
) -> None:
    recipe, out = quantizer_preset(name), tmp_path / "out"
    if isinstance(recipe.method, GPTQ):
        recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update={"sequential": sequential})})
    out.mkdir()
    build_quantized(recipe, checkpoint, calibration if isinstance(recipe.method, GPTQ) else None, out)
    full, quantized = load_model(checkpoint), load_model(checkpoint)
    apply_quantized(quantized, out)
    tokens = torch.arange(24)[None]
    with torch.inference_mode():
        expected, found = (each(input_ids=tokens).logits for each in (full, quantized))
    assert float((found - expected).norm() / expected.norm()) < 0.02
    assert not torch.equal(found, expected)


def test_methods_without_a_rotated_form_are_refused() -> None:
    grid = Grid(bits=4, group_size=16)
    assert Quantized(method=RTN(grid=grid), rotation=ROTATION).rotation == ROTATION
    with pytest.raises(ValidationError, match="rotation: the method is awq; rotations go with rtn and gptq alone"):
        Quantized(method=AWQ(grid=grid), rotation=ROTATION)
