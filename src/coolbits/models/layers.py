"""Quantized weight matrices: integer codes, codes of a table, and either one rotated; how each is stored."""

from dataclasses import dataclass
from typing import Any, Self

import torch

from coolbits.models.codebooks import CodebookLayer
from coolbits.models.packing import pack, unpack
from coolbits.models.rotation import rotate_back

Parts = dict[str, torch.Tensor]


@dataclass(frozen=True)
class IntegerLayer:
    """A weight matrix [outputs, inputs] as integer codes; input j belongs to the group `group_index[j]`.

    Zero points are integers (uint8), or, of HQQ, real numbers (float32).
    """

    bits: int
    symmetric: bool
    codes: torch.Tensor  # uint8 [outputs, inputs]
    scales: torch.Tensor  # float32 [outputs, groups]
    zeros: torch.Tensor  # uint8 or float32 [outputs, groups]
    group_index: torch.Tensor  # int32 [inputs]

    def weight(self) -> torch.Tensor:
        """Return the matrix that the codes stand for, float32 [outputs, inputs]: the same bits every time."""
        if self.neighbouring:
            groups = self.codes.unflatten(1, (-1, self.group_size))
            return dequantize(groups, self.scales[..., None], self.zeros[..., None]).flatten(1)
        # Not `scales[:, index]`, nor of bytes: both take PyTorch several times as long.
        scales, zeros = (part.index_select(1, self.group_index) for part in (self.scales, self.zeros.float()))
        return dequantize(self.codes, scales, zeros)

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def group_size(self) -> int:
        """Inputs that share a scale."""
        return self.codes.shape[1] // self.scales.shape[1]

    @property
    def neighbouring(self) -> bool:
        """Whether groups are neighbouring inputs."""
        return torch.equal(self.group_index.cpu(), neighbouring_groups(self.codes.shape[1], self.group_size))

    def store(self) -> tuple[Parts, dict[str, Any]]:
        """Return tensors and layout: codes packed densely along the inputs, and nothing that the layout implies.

        Zeros are left out where the grid is symmetric (they are 2**(bits-1)), the index where groups are neighbours.
        """
        parts = {"codes": pack(self.codes, self.bits), "scales": self.scales}
        integer = self.zeros.dtype == torch.uint8
        if not self.symmetric:
            parts["zeros"] = pack(self.zeros, self.bits) if integer else self.zeros
        neighbouring = self.neighbouring
        if not neighbouring:
            parts["group_index"] = self.group_index
        layout = {
            "kind": "integer",
            "shape": list(self.shape),
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "zeros": "integer" if integer else "real",
            "groups": "neighbours" if neighbouring else "indexed",
        }
        return parts, layout

    @classmethod
    def restore(cls, parts: Parts, layout: dict[str, Any]) -> "IntegerLayer":
        """Read back what `store` gave."""
        bits, inputs, scales = layout["bits"], layout["shape"][1], parts["scales"]
        zeros = torch.full(scales.shape, 1 << (bits - 1), dtype=torch.uint8)
        if "zeros" in parts:
            zeros = unpack(parts["zeros"], bits, scales.shape[1]) if layout["zeros"] == "integer" else parts["zeros"]
        index = parts.get("group_index", neighbouring_groups(inputs, layout["group_size"]))
        return cls(bits, layout["symmetric"], unpack(parts["codes"], bits, inputs), scales, zeros, index)


@dataclass(frozen=True)
class RotatedLayer:
    """A layer whose stored matrix is W Q, with Q the `rotation` of its inputs by `seed`."""

    inner: IntegerLayer
    seed: int

    def weight(self) -> torch.Tensor:
        """Return the matrix in the model's own basis, float32 [outputs, inputs]."""
        return rotate_back(self.inner.weight(), self.seed).to(torch.float32)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.inner.bits

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.inner.shape

    @property
    def group_size(self) -> int:
        """Inputs that share a scale."""
        return self.inner.group_size

    def store(self) -> tuple[Parts, dict[str, Any]]:
        """Return the inner layer's tensors, and its layout with the rotation's seed."""
        parts, layout = self.inner.store()
        return parts, {"kind": "rotated", "rotation_seed": self.seed, "inner": layout}

    @classmethod
    def restore(cls, parts: Parts, layout: dict[str, Any]) -> "RotatedLayer":
        """Read back what `store` gave."""
        return cls(IntegerLayer.restore(parts, layout["inner"]), layout["rotation_seed"])


Layer = IntegerLayer | CodebookLayer | RotatedLayer


@dataclass(frozen=True)
class PackedLayer:
    """A layer as it is stored, on the CPU, with memory of its own: `bits / 8` bytes a code."""

    parts: Parts
    layout: dict[str, Any]

    @classmethod
    def of(cls, layer: Layer) -> Self:
        """Pack a layer."""
        parts, layout = layer.store()
        own = {name: torch.empty(part.shape, dtype=part.dtype).copy_(part) for name, part in parts.items()}
        return cls(own, layout)

    def layer(self) -> Layer:
        """Return the layer itself."""
        return restore(self.parts, self.layout)

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        outputs, inputs = self.layout.get("inner", self.layout)["shape"]
        return outputs, inputs


_KINDS: dict[str, type[IntegerLayer] | type[CodebookLayer] | type[RotatedLayer]] = {
    "integer": IntegerLayer,
    "codebook": CodebookLayer,
    "rotated": RotatedLayer,
}


def restore(parts: Parts, layout: dict[str, Any]) -> Layer:
    """Return the layer that `store` described."""
    return _KINDS[layout["kind"]].restore(parts, layout)


def dequantize(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Return `scale * (codes - zero)` in the dtype of `scale`; `codes` are integers, the others broadcast."""
    return codes.to(scale.dtype).sub_(zero.to(scale.dtype)).mul_(scale)


def neighbouring_groups(inputs: int, group_size: int) -> torch.Tensor:
    """Return the group of each input where groups are neighbouring inputs, int32 [inputs]."""
    return torch.arange(inputs, dtype=torch.int32) // group_size
