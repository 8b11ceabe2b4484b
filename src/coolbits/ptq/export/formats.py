"""What the export formats have in common: a grid that all layers share, and groups of neighbouring inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from coolbits.models.layers import IntegerLayer, Layer, Parts, neighbouring_groups
from coolbits.models.quantized import QuantizedModel


@dataclass(frozen=True)
class Scheme:
    """The grid that all layers of a model share; `group_size` None means one scale a row."""

    bits: int
    group_size: int | None
    symmetric: bool


@dataclass(frozen=True)
class Format:
    """A way to write a quantized model.

    `why_not`: what of a model the format cannot hold, None if it holds all. `config`: the `quantization_config` of
    `config.json`, given the model, the names of the linear layers that are not quantized, and whether the output head
    is. `tensors`: what replaces a module's `weight`, by name, given that config. `weight`: the weight, float32
    [outputs, inputs], that a reader sees in such tensors, given that config.
    """

    name: str
    why_not: Callable[[QuantizedModel], str | None]
    config: Callable[[QuantizedModel, list[str], bool], dict[str, Any]]
    tensors: Callable[[IntegerLayer, Mapping[str, Any]], Parts]
    weight: Callable[[Parts, Mapping[str, Any]], torch.Tensor]


def integer_layers(model: QuantizedModel) -> dict[str, IntegerLayer]:
    """Return the layers of a model all of whose layers are integer codes."""
    return {name: layer for name, layer in model.layers.items() if isinstance(layer, IntegerLayer)}


def why_no_integers(model: QuantizedModel) -> str | None:
    """Say what keeps a model from being integer codes with integer zero points on one grid; None if nothing does."""
    for name, layer in model.layers.items():
        if not isinstance(layer, IntegerLayer):
            return f"{name} is stored as {_kind(layer)}, not as integers on the model's own weights"
        if layer.zeros.dtype != torch.uint8:
            return f"{name} has zero points that are no integers"
    if _common_scheme(integer_layers(model)) is None:
        return "its layers differ in bits, group size or symmetry"
    return None


def scheme_of(model: QuantizedModel) -> Scheme:
    """Return the grid of a model that `why_no_integers` has nothing against."""
    scheme = _common_scheme(integer_layers(model))
    if scheme is None:
        raise ValueError("the layers share no grid")
    return scheme


def with_neighbours(layer: IntegerLayer) -> IntegerLayer | None:
    """Return the layer with groups numbered along the inputs, or None if a group's inputs do not lie together."""
    if layer.neighbouring:
        return layer
    size = layer.group_size
    order = layer.group_index[::size]
    if not torch.equal(order.repeat_interleave(size), layer.group_index):
        return None
    index = neighbouring_groups(layer.shape[1], size)
    return replace(layer, scales=layer.scales[:, order], zeros=layer.zeros[:, order], group_index=index)


def _common_scheme(layers: Mapping[str, IntegerLayer]) -> Scheme | None:
    bits = {layer.bits for layer in layers.values()}
    symmetric = {layer.symmetric for layer in layers.values()}
    sizes = {layer.group_size for layer in layers.values()}
    whole_rows = all(layer.scales.shape[1] == 1 for layer in layers.values())
    if len(bits) != 1 or len(symmetric) != 1 or (len(sizes) != 1 and not whole_rows):
        return None
    return Scheme(bits.pop(), None if whole_rows else sizes.pop(), symmetric.pop())


def _kind(layer: Layer) -> str:
    return str(layer.store()[1]["kind"])
