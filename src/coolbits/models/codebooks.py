"""Weight matrices as codes of a table of 16 values: the 4-bit types of bitsandbytes, as its version 0.50 has them."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from coolbits.models.packing import pack, unpack
from coolbits.optim.codebook import dynamic_codebook

Table = Literal["nf4", "fp4"]

# By code. NF4: quantiles of the normal distribution (QLoRA, Dettmers et al. 2023, appendix E). FP4: a sign, two bits of
# exponent and one of mantissa; zero has two codes.
TABLES: dict[Table, torch.Tensor] = {
    "nf4": torch.tensor(
        [
            *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
            *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
            *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
            *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
        ],
        device="cpu",
    ),
    "fp4": torch.tensor(
        [0.0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], dtype=torch.float32, device="cpu"
    )
    / 12,
}
SCALES_A_BLOCK = 256
_BITS = 4


@dataclass(frozen=True)
class DoubleScales:
    """Scales that are rounded themselves (QLoRA's double quantization): an entry of the signed dynamic codebook of 256,
    times the scale of its block of 256 scales, plus an offset for all.
    """

    codes: torch.Tensor  # uint8 [blocks]
    scales: torch.Tensor  # float32 [ceil(blocks / 256)]
    offset: torch.Tensor  # float32 []

    def values(self) -> torch.Tensor:
        """Return the scales that the codes stand for, float32 [blocks]."""
        entries = dynamic_codebook(signed=True).to(self.codes.device)[self.codes.int()]
        return entries * _spread(self.scales, SCALES_A_BLOCK, len(entries)) + self.offset


@dataclass(frozen=True)
class CodebookLayer:
    """A weight matrix [outputs, inputs] as codes of a table; neighbours in the flattened matrix share a scale."""

    table: Table
    block_size: int
    codes: torch.Tensor  # uint8 [outputs, inputs]
    scales: torch.Tensor | DoubleScales  # float32 [ceil(outputs * inputs / block_size)]

    def weight(self) -> torch.Tensor:
        """Return the matrix that the codes stand for, float32 [outputs, inputs]: the same bits every time."""
        scales = self.scales.values() if isinstance(self.scales, DoubleScales) else self.scales
        entries = TABLES[self.table].to(self.codes.device)[self.codes.int()]
        return entries * _spread(scales, self.block_size, self.codes.numel()).view(self.codes.shape)

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return _BITS

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def group_size(self) -> int:
        """Weights that share a scale."""
        return self.block_size

    def store(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors and layout: codes packed densely along the inputs; scales as they are, or their own codes."""
        parts = {"codes": pack(self.codes, _BITS)}
        double = isinstance(self.scales, DoubleScales)
        if isinstance(self.scales, DoubleScales):
            parts |= {
                "scale_codes": self.scales.codes,
                "scales": self.scales.scales,
                "offset": self.scales.offset,
            }
        else:
            parts["scales"] = self.scales
        layout = {
            "kind": "codebook",
            "shape": list(self.shape),
            "table": self.table,
            "block_size": self.block_size,
            "double": double,
        }
        return parts, layout

    @classmethod
    def restore(cls, parts: dict[str, torch.Tensor], layout: dict[str, Any]) -> "CodebookLayer":
        """Read back what `store` gave."""
        scales: torch.Tensor | DoubleScales = parts["scales"]
        if layout["double"]:
            scales = DoubleScales(parts["scale_codes"], parts["scales"], parts["offset"])
        codes = unpack(parts["codes"], _BITS, layout["shape"][1])
        return cls(layout["table"], layout["block_size"], codes, scales)


def _spread(scales: torch.Tensor, block_size: int, size: int) -> torch.Tensor:
    """Return the scale of each of `size` neighbours, [size]; the last block may be short."""
    return scales.repeat_interleave(block_size, output_size=len(scales) * block_size)[:size]
