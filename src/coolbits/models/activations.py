"""Rounding of the inputs of quantized layers while a model runs, by hooks: the model's code stays what it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from coolbits.models.layers import Layer, RotatedLayer
from coolbits.models.rotation import rotate, rotate_back

_INT8 = 127
_SMALLEST = 1e-30  # of a row's magnitude: 127 times the inverse of a far smaller one is infinite


@dataclass(frozen=True)
class TokenRounding:
    """One integer grid a token, found as the model runs (compressed-tensors' dynamic strategy "token").

    With codes q from -2**(bits-1) to 2**(bits-1) - 1, x becomes s * (q - z), q = x / s + z rounded half to even and
    clamped. Symmetric: z = 0 and s = 2 * max|x| / (2**bits - 1). Otherwise the grid spans [min(x, 0), max(x, 0)] and z
    is the rounded code of zero. Arithmetic is float32, whatever the dtype of x.
    """

    bits: int
    symmetric: bool

    def round(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return `inputs` [..., width] on the grids of their tokens, float32."""
        values = inputs.float()
        low, high = values.amin(-1, keepdim=True).clamp(max=0), values.amax(-1, keepdim=True).clamp(min=0)
        bottom, top = -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        scale = torch.maximum(-low, high) * 2 / (top - bottom) if self.symmetric else (high - low) / (top - bottom)
        scale = torch.where(scale == 0, torch.finfo(torch.float32).eps, scale)  # a token of zeros
        zero = torch.zeros_like(scale) if self.symmetric else (bottom - low / scale).clamp(bottom, top).round()
        codes = (values / scale + zero).clamp_(bottom, top).round_()
        return (codes - zero) * scale


@dataclass(frozen=True)
class OutlierRounding:
    """Eight bits a token, and inputs that hold an outlier left as they are: LLM.int8() of bitsandbytes.

    Inputs are cast to `precision`. Elements with |x| >= threshold are outliers (none if it is 0); of the others, x
    becomes q * s / 127 with s = max|x| over the token and q = x * (127 / s) rounded half to even. A column that holds
    an outlier in any token of the batch the layer is called with is not rounded at all: a token's result depends on
    the tokens beside it, as it does in bitsandbytes.
    """

    threshold: float
    precision: Literal["float16", "float32"]

    def round(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return `inputs` [..., width], rounded save for the columns of outliers, float32."""
        values = inputs.float()
        cast = inputs.reshape(-1, inputs.shape[-1]).to(getattr(torch, self.precision)).float()  # [tokens, width]
        outliers = cast.abs() >= (self.threshold or torch.inf)
        codes, scale = round_rows(cast.masked_fill(outliers, 0))
        return torch.where(outliers.any(0), values, (codes * scale).view(values.shape))


Rounding = TokenRounding | OutlierRounding
_KINDS: dict[str, type[TokenRounding] | type[OutlierRounding]] = {"token": TokenRounding, "outlier": OutlierRounding}


def store_rounding(rounding: Rounding) -> dict[str, Any]:
    """Return plain JSON values that `restore_rounding` reads."""
    (kind,) = (name for name, each in _KINDS.items() if isinstance(rounding, each))
    return {"kind": kind} | asdict(rounding)


def restore_rounding(stored: dict[str, Any]) -> Rounding:
    """Read back what `store_rounding` gave."""
    return _KINDS[stored["kind"]](**{key: value for key, value in stored.items() if key != "kind"})


def round_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes from -127 to 127 (float32 [rows, columns]) and scales (float32 [rows, 1]) by each row's magnitude.

    Codes are rounded from the product with 127 / magnitude, as in bitsandbytes: a quotient can fall on another code.
    """
    largest = rows.abs().amax(1, keepdim=True).clamp_(min=_SMALLEST)
    return torch.round(rows * (_INT8 / largest)), largest / _INT8


@dataclass(frozen=True, eq=False)
class _RoundInputs:
    """A hook that runs before a layer and rounds its input, that of a rotated layer in the rotated basis."""

    rounding: Rounding
    rotation_seed: int | None

    def __call__(self, _layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        inputs, *others = arguments
        if self.rotation_seed is None:
            return self.rounding.round(inputs).to(inputs.dtype), *others
        rounded = self.rounding.round(rotate(inputs, self.rotation_seed))
        return rotate_back(rounded, self.rotation_seed).to(inputs.dtype), *others


def round_inputs(modules: Mapping[str, nn.Module], layers: Mapping[str, Layer], rounding: Rounding | None) -> None:
    """Make the modules that `layers` names round their inputs from now on, and in no other way than that.

    None takes the rounding away that an earlier call put there.
    """
    for name, layer in layers.items():
        module = modules[name]
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _RoundInputs):
                del module._forward_pre_hooks[key]
        if rounding is not None:
            seed = layer.seed if isinstance(layer, RotatedLayer) else None
            module.register_forward_pre_hook(_RoundInputs(rounding, seed))
