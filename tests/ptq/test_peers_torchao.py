"""Our rounding to nearest, and 8-bit tokens, against torchao 0.18.0 on a CPU.

Its scales are ours to the bit. It multiplies by a scale's inverse where we divide, so the largest weight of a symmetric
group, half way between two levels, may fall on the other one.
"""

import pytest
import torch
from torch import nn

from coolbits.models.activations import TokenRounding
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import Grid

torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed: see envs/peers-ptq.txt")
Int8Tensor = pytest.importorskip("torchao.quantization.quantize_.workflows.int8.int8_tensor").Int8Tensor


def outlying_weight(outputs: int, inputs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(outputs, inputs, generator=generator) ** 3
    weight[:, ::17] *= 20
    return weight


def quantized_by_torchao(weight: torch.Tensor, config: object) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    torchao.quantize_(layer, config)
    return layer


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [None, 32, 128])
def test_rounding_to_nearest_has_the_same_scales_and_but_for_ties_the_same_codes(
    bits: int, group_size: int | None, symmetric: bool
) -> None:
    weight = outlying_weight(96, 256)
    theirs = quantized_by_torchao(
        weight,
        torchao.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"),
            granularity=torchao.PerGroup(group_size) if group_size else torchao.PerAxis(0),
            mapping_type=torchao.MappingType.SYMMETRIC if symmetric else torchao.MappingType.ASYMMETRIC,
        ),
    ).weight
    ours = round_to_nearest(weight, Grid(bits=bits, group_size=group_size, symmetric=symmetric))
    middle = 1 << (bits - 1)
    assert torch.equal(ours.scales, theirs.scale.view_as(ours.scales))
    assert torch.equal(ours.zeros.int(), theirs.zero_point.view_as(ours.scales).int() + middle)
    missed = (ours.codes.int() - middle - theirs.qdata.int()).abs()
    assert int(missed.max()) <= 1
    levels = weight / ours.scales[:, ours.group_index.long()]
    assert bool(((levels - levels.floor())[missed > 0] - 0.5).abs().le(1e-5).all())


def test_int8_weights_alone_are_a_grid_of_8_bits_a_row() -> None:
    weight = outlying_weight(96, 256)
    theirs = quantized_by_torchao(weight, torchao.Int8WeightOnlyConfig(version=2)).weight
    ours = round_to_nearest(weight, Grid(bits=8))
    assert torch.equal(ours.scales, theirs.scale)
    missed = ours.codes.int() - 128 - theirs.qdata.int()
    assert int(missed.abs().max()) <= 1
    assert int((missed != 0).sum()) <= 96


@pytest.mark.parametrize("symmetric", [True, False])
def test_8_bit_tokens_have_the_same_codes_but_for_their_largest_inputs(symmetric: bool) -> None:
    inputs = torch.randn(80, 256, generator=torch.Generator().manual_seed(1)) + 0.3
    mapping = torchao.MappingType.SYMMETRIC if symmetric else torchao.MappingType.ASYMMETRIC
    theirs = Int8Tensor.from_hp(inputs, torchao.PerRow(), mapping_type=mapping)
    ours = TokenRounding(8, symmetric).round(inputs)
    missed = ((ours - theirs.dequantize()) / theirs.scale).abs() > 1e-3
    largest = inputs.abs() == inputs.abs().amax(1, keepdim=True)
    assert not bool((missed & ~largest).any())
    assert symmetric or not bool(missed.any())


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_layer_of_8_bit_weights_and_tokens_gives_the_same_outputs(symmetric: bool) -> None:
    weight = outlying_weight(96, 256)
    inputs = torch.randn(4, 20, 256, generator=torch.Generator().manual_seed(1)) + 0.3
    mapping = torchao.MappingType.SYMMETRIC if symmetric else torchao.MappingType.ASYMMETRIC
    layer = quantized_by_torchao(
        weight, torchao.Int8DynamicActivationInt8WeightConfig(act_mapping_type=mapping, version=2)
    )
    expected = layer(inputs)
    difference = (
        TokenRounding(8, symmetric).round(inputs) @ round_to_nearest(weight, Grid(bits=8)).weight().T - expected
    )
    assert float(difference.norm()) < 0.1 * float((inputs @ weight.T - expected).norm())
