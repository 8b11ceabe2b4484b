"""Compressed-tensors, the format of llm-compressor, as its version 0.19 writes it.

Weights alone are `pack-quantized`, 1 to 8 bits; weights and activations `int-quantized`, a byte a code. Codes are
signed there: ours less 2**(bits-1), and packed they get it back, so that packed words hold our very codes. Since 0.19
it has no `weight_g_idx`: groups are neighbouring inputs.
"""

from collections.abc import Mapping
from typing import Any

import torch

from coolbits.models.activations import OutlierRounding, TokenRounding
from coolbits.models.layers import IntegerLayer, Parts
from coolbits.models.quantized import QuantizedModel
from coolbits.ptq.export.formats import Format, integer_layers, scheme_of, why_no_integers, with_neighbours
from coolbits.ptq.export.words import pack_words, unpack_words

VERSION = "0.19.0"
_PACKED, _BYTES = "pack-quantized", "int-quantized"


def _why_not(model: QuantizedModel) -> str | None:
    if reason := why_no_integers(model):
        return reason
    if isinstance(model.activations, OutlierRounding):
        return "inputs with outliers stay as they are while the model runs (LLM.int8())"
    for name, layer in integer_layers(model).items():
        if with_neighbours(layer) is None:
            return f"the groups of {name} are not neighbouring inputs (activation order without `static_groups`)"
    return None


def _config(model: QuantizedModel, unquantized: list[str], _head: bool) -> dict[str, Any]:
    scheme = scheme_of(model)
    layout = _PACKED if model.activations is None else _BYTES
    weights = _arguments(
        bits=scheme.bits,
        symmetric=scheme.symmetric,
        strategy="channel" if scheme.group_size is None else "group",
        group_size=scheme.group_size,
    )
    inputs = None
    if isinstance(model.activations, TokenRounding):
        own = model.activations
        inputs = _arguments(bits=own.bits, symmetric=own.symmetric, strategy="token", dynamic=True)
    group = {
        "format": layout,
        "input_activations": inputs,
        "output_activations": None,
        "targets": ["Linear"],
        "weights": weights,
    }
    return {
        "config_groups": {"group_0": group},
        "format": layout,
        "global_compression_ratio": None,
        "ignore": unquantized,
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": VERSION,
    }


def _arguments(
    bits: int, symmetric: bool, strategy: str, group_size: int | None = None, dynamic: bool = False
) -> dict[str, Any]:
    return {
        "actorder": None,
        "block_structure": None,
        "dynamic": dynamic,
        "group_size": group_size,
        "num_bits": bits,
        "observer": None,
        "observer_kwargs": {},
        "scale_dtype": None,
        "strategy": strategy,
        "symmetric": symmetric,
        "type": "int",
        "zp_dtype": None if symmetric else "torch.int8",
    }


def _tensors(layer: IntegerLayer, config: Mapping[str, Any]) -> Parts:
    neighbours = with_neighbours(layer)
    if neighbours is None:
        raise ValueError("the groups are not neighbouring inputs")
    bits, codes, zeros = neighbours.bits, neighbours.codes, neighbours.zeros
    parts: Parts = {"weight_scale": neighbours.scales}
    if config["format"] == _PACKED:
        parts |= {"weight_packed": pack_words(codes, bits), "weight_shape": torch.tensor(layer.shape)}
        if not layer.symmetric:
            parts["weight_zero_point"] = pack_words(zeros.T, bits).T
    else:
        parts["weight"] = _signed(codes, bits)
        if not layer.symmetric:
            parts["weight_zero_point"] = _signed(zeros, bits)
    return parts


def _signed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    return (codes.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)


def _weight(parts: Parts, config: Mapping[str, Any]) -> torch.Tensor:
    """Read as compressed-tensors does: (q - zero) * scale with signed q, scale and zero once a group."""
    bits = config["config_groups"]["group_0"]["weights"]["num_bits"]
    scale, middle = parts["weight_scale"].float(), 1 << (bits - 1)
    zero = torch.zeros_like(scale)
    if config["format"] == _PACKED:
        rows, columns = parts["weight_shape"].tolist()
        codes = unpack_words(parts["weight_packed"], bits, columns).float() - middle
        if "weight_zero_point" in parts:
            zero = unpack_words(parts["weight_zero_point"].T, bits, rows).T.float() - middle
    else:
        codes = parts["weight"].float()
        zero = parts["weight_zero_point"].float() if "weight_zero_point" in parts else zero
    groups = codes.reshape(len(codes), scale.shape[1], -1)  # [outputs, groups, group]
    return ((groups - zero[..., None]) * scale[..., None]).reshape(codes.shape)


COMPRESSED_TENSORS = Format("compressed-tensors", _why_not, _config, _tensors, _weight)
