"""Our rounding of activations against compressed-tensors 0.19.0, which is what llm-compressor and vLLM mean by W8A8."""

import pytest
import torch

from coolbits.models.activations import TokenRounding

REASON = "compressed-tensors is not installed: see envs/peers-ptq.txt"
arguments = pytest.importorskip("compressed_tensors.quantization.quant_args", reason=REASON)
forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward", reason=REASON)
helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers", reason=REASON)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("offset", [0.0, 0.7, 9.0])
def test_dynamic_tokens_are_rounded_to_the_same_bits(bits: int, symmetric: bool, offset: float) -> None:
    inputs = offset + torch.randn(3, 50, 128, generator=torch.Generator().manual_seed(0)) ** 3
    inputs[1, 2] = 0
    settings = arguments.QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="token", dynamic=True)
    scales, zeros = helpers.compute_dynamic_scales_and_zp(inputs, settings, torch.nn.Identity())
    theirs = forward.fake_quantize(inputs, scales, zeros, settings)
    assert torch.equal(TokenRounding(bits, symmetric).round(inputs), theirs)
