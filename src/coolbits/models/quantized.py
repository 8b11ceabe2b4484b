"""Quantized weights on disk: codes, scales and zeros per module, and how to put them back into a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.models.packing import pack, unpack

CODES = "codes.safetensors"
LAYOUT = "layout.json"


@dataclass(frozen=True)
class QuantizedLayer:
    """A weight matrix [outputs, inputs] as integer codes; input j belongs to the group `group_index[j]`."""

    bits: int
    symmetric: bool
    codes: torch.Tensor  # uint8 [outputs, inputs]
    scales: torch.Tensor  # float32 [outputs, groups]
    zeros: torch.Tensor  # uint8 [outputs, groups]
    group_index: torch.Tensor  # int32 [inputs]

    def weight(self) -> torch.Tensor:
        """Return the matrix that the codes stand for, float32 [outputs, inputs]: the same bits every time."""
        index = self.group_index.long()
        return dequantize(self.codes, self.scales[:, index], self.zeros[:, index])

    @property
    def group_size(self) -> int:
        """Inputs that share a scale."""
        return self.codes.shape[1] // self.scales.shape[1]


def dequantize(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Return `scale * (codes - zero)` in the dtype of `scale`; the three shapes broadcast."""
    return scale * (codes.to(scale.dtype) - zero.to(scale.dtype))


def weight_matrix(module: nn.Module) -> torch.Tensor:
    """Return a module's weight as a view [outputs, inputs], also for GPT-2's transposed `Conv1D`."""
    weight: torch.Tensor = module.weight.detach()  # type: ignore[operator]
    return weight.T if isinstance(module, Conv1D) else weight


def write_quantized(layers: Mapping[str, QuantizedLayer], out: Path) -> int:
    """Write `codes.safetensors` and `layout.json` into `out`; return the bytes that codes, scales and zeros take.

    Codes are packed densely along the inputs. Zeros are left out where the grid is symmetric (they are 2**(bits-1)),
    the group index where groups are neighbours.
    """
    tensors: dict[str, torch.Tensor] = {}
    layout: dict[str, Any] = {}
    for name, layer in layers.items():
        own = {"codes": pack(layer.codes, layer.bits), "scales": layer.scales}
        if not layer.symmetric:
            own["zeros"] = pack(layer.zeros, layer.bits)
        inputs = layer.codes.shape[1]
        neighbours = torch.equal(layer.group_index.cpu(), neighbouring_groups(inputs, layer.group_size))
        if not neighbours:
            own["group_index"] = layer.group_index
        tensors |= {f"{name}.{part}": tensor.cpu().clone() for part, tensor in own.items()}
        layout[name] = {
            "shape": list(layer.codes.shape),
            "bits": layer.bits,
            "group_size": layer.group_size,
            "symmetric": layer.symmetric,
            "groups": "neighbours" if neighbours else "indexed",
        }
    save_file(tensors, out / CODES)
    write_json(out / LAYOUT, layout)
    return sum(tensor.nbytes for tensor in tensors.values())


def read_quantized(directory: Path) -> dict[str, QuantizedLayer]:
    """Read back what `write_quantized` wrote, on the CPU.

    Raises:
        CoolbitsError: if a file is missing.
    """
    for name in (CODES, LAYOUT):
        if not (directory / name).is_file():
            raise CoolbitsError(f"{directory / name}: no such file; a quantized artifact holds {CODES} and {LAYOUT}")
    layout = json.loads((directory / LAYOUT).read_text())
    with safe_open(directory / CODES, framework="pt") as stored:
        present = set(stored.keys())
        parts = {
            name: {
                part: stored.get_tensor(f"{name}.{part}")
                for part in ("codes", "scales", "zeros", "group_index")
                if f"{name}.{part}" in present
            }
            for name in layout
        }
    return {name: _layer(entry, parts[name]) for name, entry in layout.items()}


def _layer(entry: dict[str, Any], parts: dict[str, torch.Tensor]) -> QuantizedLayer:
    bits, inputs, scales = entry["bits"], entry["shape"][1], parts["scales"]
    middle = torch.full(scales.shape, 1 << (bits - 1), dtype=torch.uint8)
    zeros = unpack(parts["zeros"], bits, scales.shape[1]) if "zeros" in parts else middle
    index = parts.get("group_index", neighbouring_groups(inputs, entry["group_size"]))
    return QuantizedLayer(bits, entry["symmetric"], unpack(parts["codes"], bits, inputs), scales, zeros, index)


def neighbouring_groups(inputs: int, group_size: int) -> torch.Tensor:
    """Return the group of each input where groups are neighbouring inputs, int32 [inputs]."""
    return torch.arange(inputs, dtype=torch.int32) // group_size


def apply_quantized(model: nn.Module, directory: Path) -> None:
    """Replace the weights of `model`, in place, by the dequantized ones of the artifact in `directory`.

    Raises:
        CoolbitsError: if the model has no such module, or one of another shape.
    """
    apply_layers(model, read_quantized(directory), str(directory / LAYOUT))


@torch.no_grad()
def apply_layers(model: nn.Module, layers: Mapping[str, QuantizedLayer], source: str = "quantized layers") -> None:
    """Replace weights of `model`, in place, by what `layers` stand for; `source` is named in errors."""
    modules = dict(model.named_modules())
    for name, layer in layers.items():
        if name not in modules:
            raise CoolbitsError(f"{source}: the model has no module {name}; it was made from another architecture")
        weight = weight_matrix(modules[name])
        if weight.shape != layer.codes.shape:
            found, expected = list(layer.codes.shape), list(weight.shape)
            raise CoolbitsError(f"{source}: {name} has the shape {found}, the model's is {expected}")
        weight.copy_(layer.weight())
