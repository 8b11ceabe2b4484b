"""The weights of LLM.int8() (Dettmers et al. 2022): eight bits, one scale a row. Its inputs: `models.activations`."""

import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.activations import round_rows
from coolbits.models.layers import IntegerLayer
from coolbits.study.recipes.methods import Int8

_BITS = 8


def quantize_rows(weight: torch.Tensor, method: Int8) -> IntegerLayer:
    """Quantize a weight [outputs, inputs] to levels q * max|row| / 127, q from -127 to 127, as bitsandbytes does."""
    codes, scales = round_rows(_cast(weight, method))
    middle = 1 << (_BITS - 1)
    zeros = torch.full_like(scales, middle, dtype=torch.uint8)
    index = torch.zeros(weight.shape[1], dtype=torch.int32, device=weight.device)
    return IntegerLayer(_BITS, True, (codes + middle).to(torch.uint8), scales, zeros, index)


def check_rows(weight: torch.Tensor, method: Int8, module: str) -> None:
    """Refuse a weight that the recipe's precision cannot hold.

    Raises:
        CoolbitsError: naming the module.
    """
    if not torch.isfinite(_cast(weight, method)).all():
        raise CoolbitsError(
            f"method.precision: {module} holds a weight of {float(weight.abs().max()):.3g}, too large for "
            f"{method.precision}; take float32"
        )


def _cast(weight: torch.Tensor, method: Int8) -> torch.Tensor:
    return weight.to(getattr(torch, method.precision)).float()
