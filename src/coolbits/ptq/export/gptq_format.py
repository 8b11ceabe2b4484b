"""The format of AutoGPTQ and GPTQModel: `qweight`, `qzeros`, `scales` and `g_idx`, the group of each input.

Version 1 stores each zero point less one. A zero point of 0 has no place in it (readers of it disagree), and only an
asymmetric grid has such: symmetric models are written as version 1, which older readers know, too, asymmetric ones
as version 2 (`checkpoint_format: gptq_v2`), which stores zero points as they are.
"""

from collections.abc import Mapping
from typing import Any

import torch

from coolbits.models.layers import IntegerLayer, Parts
from coolbits.models.quantized import QuantizedModel
from coolbits.ptq.export.formats import Format, integer_layers, scheme_of, why_no_integers, with_neighbours
from coolbits.ptq.export.words import pack_words, unpack_words

_BITS = (2, 3, 4, 8)
_WORD_BITS = 32
_WHOLE_ROW = -1


def _why_not(model: QuantizedModel) -> str | None:
    if reason := why_no_integers(model):
        return reason
    if model.activations is not None:
        return "it rounds activations, too"
    if (bits := scheme_of(model).bits) not in _BITS:
        return f"it has {bits} bits, not 2, 3, 4 or 8"
    for name, layer in model.layers.items():
        if any(size * bits % _WORD_BITS for size in layer.shape):
            multiple = _WORD_BITS if bits == 3 else _WORD_BITS // bits
            return f"{name} is {layer.shape[0]} x {layer.shape[1]}, not multiples of {multiple}"
    return None


def _config(model: QuantizedModel, _unquantized: list[str], head: bool) -> dict[str, Any]:
    scheme = scheme_of(model)
    return {
        "bits": scheme.bits,
        "checkpoint_format": "gptq" if scheme.symmetric else "gptq_v2",
        "desc_act": any(with_neighbours(layer) is None for layer in integer_layers(model).values()),
        "group_size": scheme.group_size or _WHOLE_ROW,
        "lm_head": head,
        "pack_dtype": "int32",
        "quant_method": "gptq",
        "sym": scheme.symmetric,
    }


def _tensors(layer: IntegerLayer, config: Mapping[str, Any]) -> Parts:
    stored = with_neighbours(layer) or layer
    less = _stored_less(config)
    return {
        "g_idx": stored.group_index,
        "qweight": pack_words(stored.codes, stored.bits).T,
        "qzeros": pack_words(stored.zeros.T - less, stored.bits),
        "scales": stored.scales.T,
    }


def _stored_less(config: Mapping[str, Any]) -> int:
    return 1 if config["checkpoint_format"] == "gptq" else 0


def _weight(parts: Parts, config: Mapping[str, Any]) -> torch.Tensor:
    """Read as GPTQModel does: scales[g_idx] * (q - zeros[g_idx]) over [inputs, outputs]."""
    bits, index = config["bits"], parts["g_idx"].long()
    inputs, outputs = len(index), parts["scales"].shape[1]
    codes = unpack_words(parts["qweight"].T, bits, inputs).T.float()
    zeros = unpack_words(parts["qzeros"], bits, outputs).float() + _stored_less(config)
    return (parts["scales"].float()[index] * (codes - zeros[index])).T


GPTQ_FORMAT = Format("gptq", _why_not, _config, _tensors, _weight)
