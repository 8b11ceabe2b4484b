"""Our HQQ against hqq 0.2.8: its quantizer on a CPU, where it solves in float32 as ours does everywhere."""

import pytest
import torch

from coolbits.ptq.hqq import quantize_half_quadratic
from coolbits.study.recipes.methods import HQQ, Grid

hqq = pytest.importorskip("hqq.core.quantize", reason="hqq is not installed: see envs/peers-ptq.txt")


def outlying_weight(outputs: int, inputs: int) -> torch.Tensor:
    """Return a weight with heavy tails, a row of zeros, and groups that span very little and are all alike."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(outputs, inputs, generator=generator) ** 3
    weight[:, ::17] *= 20
    weight[1], weight[2, :64], weight[3, 64:] = 0, weight[2, :64] * 1e-4, 0.3
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [None, 32, 64, 128])
@pytest.mark.parametrize("size", [1, 50])
def test_codes_and_weights_are_the_same_bits(bits: int, group_size: int | None, size: int) -> None:
    weight = size * outlying_weight(96, 256)
    ours = quantize_half_quadratic(weight, HQQ(grid=Grid(bits=bits, group_size=group_size, symmetric=False)))
    settings = hqq.BaseQuantizeConfig(nbits=bits, group_size=group_size, axis=1)["weight_quant_params"]
    codes, theirs = hqq.Quantizer.quantize(weight, **settings, device="cpu", bitpack=False)
    assert torch.equal(ours.codes, codes.reshape(weight.shape).to(torch.uint8))
    assert torch.equal(ours.scales, theirs["scale"].view_as(ours.scales))
    assert torch.equal(ours.zeros, theirs["zero"].view_as(ours.zeros))
    assert torch.equal(ours.weight(), hqq.Quantizer.dequantize(codes, theirs | {"compute_dtype": torch.float32}))
