"""Quantized models on disk: each layer's codes, tensors replaced beside them, and how to put them into a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.models.activations import Rounding, restore_rounding, round_inputs, store_rounding
from coolbits.models.head import untie_head
from coolbits.models.layers import Layer, PackedLayer

CODES = "codes.safetensors"
REPLACED = "replaced.safetensors"
LAYOUT = "layout.json"


@dataclass(frozen=True)
class QuantizedModel:
    """What quantization changes of a model.

    `layers`: linear layers by module name. `replaced`: other parameters by name, whole and not quantized (AWQ moves
    scales into norms). `activations`: how the layers' inputs are rounded while the model runs; None: not at all.
    """

    layers: Mapping[str, Layer]
    replaced: Mapping[str, torch.Tensor] = field(default_factory=dict)
    activations: Rounding | None = None


def weight_matrix(module: nn.Module) -> torch.Tensor:
    """Return a module's weight as a view [outputs, inputs], also for GPT-2's transposed `Conv1D`."""
    weight: torch.Tensor = module.weight.detach()  # type: ignore[operator]
    return weight.T if isinstance(module, Conv1D) else weight


def write_quantized(model: QuantizedModel, out: Path) -> int:
    """Write `codes.safetensors`, `layout.json` and, if there are any, `replaced.safetensors` into `out`.

    Returns:
        The bytes that codes, scales and zeros take.
    """
    layers = {name: PackedLayer.of(layer) for name, layer in model.layers.items()}
    return write_packed(layers, model.replaced, model.activations, out)


def write_packed(
    layers: Mapping[str, PackedLayer],
    replaced: Mapping[str, torch.Tensor],
    activations: Rounding | None,
    out: Path,
) -> int:
    """Write what `write_quantized` does, of layers that are packed."""
    tensors = {f"{name}.{part}": tensor for name, layer in layers.items() for part, tensor in layer.parts.items()}
    save_file(tensors, out / CODES)
    if replaced:
        save_file({name: tensor.cpu().contiguous() for name, tensor in replaced.items()}, out / REPLACED)
    layouts = {name: layer.layout for name, layer in layers.items()}
    write_json(out / LAYOUT, {"layers": layouts, "activations": store_rounding(activations) if activations else None})
    return sum(tensor.nbytes for tensor in tensors.values())


def read_quantized(directory: Path) -> QuantizedModel:
    """Read back what `write_quantized` wrote, on the CPU.

    Raises:
        CoolbitsError: if a file is missing.
    """
    layers = {name: layer.layer() for name, layer in read_packed(directory).items()}
    activations = json.loads((directory / LAYOUT).read_bytes())["activations"]
    return QuantizedModel(layers, read_replaced(directory), restore_rounding(activations) if activations else None)


def read_packed(directory: Path) -> dict[str, PackedLayer]:
    """Read back the layers that `write_packed` wrote, in their order.

    Raises:
        CoolbitsError: if a file is missing.
    """
    for name in (CODES, LAYOUT):
        if not (directory / name).is_file():
            raise CoolbitsError(f"{directory / name}: no such file; a quantized artifact holds {CODES} and {LAYOUT}")
    layouts = json.loads((directory / LAYOUT).read_bytes())["layers"]
    parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in layouts}
    with safe_open(directory / CODES, framework="pt") as stored:
        for key in stored.keys():  # noqa: SIM118 - the file is no mapping
            name, _, part = key.rpartition(".")
            parts[name][part] = stored.get_tensor(key)
    return {name: PackedLayer(parts[name], layout) for name, layout in layouts.items()}


def read_replaced(directory: Path) -> dict[str, torch.Tensor]:
    """Read back the other parameters that `write_packed` wrote; none if there were none."""
    return load_file(directory / REPLACED) if (directory / REPLACED).is_file() else {}


def apply_quantized(model: nn.Module, directory: Path) -> None:
    """Make `model`, in place, the quantized one of the artifact in `directory`, as `apply_model` does.

    Raises:
        CoolbitsError: if the model has no such module, or one of another shape.
    """
    apply_model(model, read_quantized(directory), str(directory / LAYOUT))


@torch.no_grad()
def apply_model(model: nn.Module, quantized: QuantizedModel, source: str = "quantized layers") -> None:
    """Replace weights of `model`, in place, by what `quantized` holds; its layers round their inputs as that says.

    A head that is among them is untied from the embedding, which stays as it is. `source` is named in errors.
    """
    untie_head(model, quantized.layers)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for name, layer in quantized.layers.items():
        if name not in modules:
            raise CoolbitsError(f"{source}: the model has no module {name}; it was made from another architecture")
        weight = weight_matrix(modules[name])
        if weight.shape != layer.shape:
            found, expected = list(layer.shape), list(weight.shape)
            raise CoolbitsError(f"{source}: {name} has the shape {found}, the model's is {expected}")
        weight.copy_(layer.weight())
    for name, tensor in quantized.replaced.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            raise CoolbitsError(f"{source}: the model has no parameter {name} of shape {list(tensor.shape)}")
        parameters[name].copy_(tensor)
    round_inputs(modules, quantized.layers, quantized.activations)
