"""Linear layers that compute from packed codes, for the speed of evaluation on a GPU.

By default a quantized model is evaluated with dequantized weights; this is what to ask for instead.
"""

import torch
from torch import nn

from coolbits.models import kernels
from coolbits.models.activations import round_inputs
from coolbits.models.layers import IntegerLayer
from coolbits.models.packing import pack
from coolbits.models.quantized import QuantizedModel, apply_model, weight_matrix


class QuantizedLinear(nn.Module):
    """A linear layer with the weight of an `IntegerLayer`, held as packed codes; its buffers move with the model."""

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, layer: IntegerLayer, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.shape
        self.bits = layer.bits
        self.register_buffer("codes", pack(layer.codes, layer.bits))
        self.register_buffer("scales", layer.scales.contiguous())
        self.register_buffer("zeros", None if layer.symmetric else layer.zeros.contiguous())
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x W^T + bias for x [..., inputs]: [..., outputs], in the dtype of x."""
        return kernels.dequantize_matmul(x, self.codes, self.scales, self.zeros, self.bits, self.bias)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


def use_kernels(model: nn.Module, quantized: QuantizedModel) -> list[str]:
    """Make `model`, in place, the quantized one, as `apply_model` does, but by the kernel where that takes a layer.

    Returns:
        The names of the layers that it took.

    Raises:
        CoolbitsError: as `apply_model`.
        RuntimeError: if there is no Triton, or neither a GPU nor its interpreter.
    """
    if not kernels.available():
        raise RuntimeError("the kernel needs Triton and a GPU; evaluate with dequantized weights instead")
    apply_model(model, quantized)
    fitting = {
        name: layer
        for name, layer in quantized.layers.items()
        if isinstance(layer, IntegerLayer) and kernels.fits(layer)
    }
    for name, layer in fitting.items():
        old = model.get_submodule(name)
        bias = getattr(old, "bias", None)
        new = QuantizedLinear(layer, None if bias is None else bias.detach())
        model.set_submodule(name, new.to(weight_matrix(old).device))
    round_inputs(dict(model.named_modules()), quantized.layers, quantized.activations)
    return list(fitting)
