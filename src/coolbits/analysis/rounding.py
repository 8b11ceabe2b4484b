"""What storing a state in 8-bit codes does to its entries."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from coolbits.analysis.rows import Value
from coolbits.optim.codebook import dynamic_codebook
from coolbits.optim.codecs import Blockwise

_LEAST_SCALE = 256 * torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Rounded:
    """A state before and after it was stored, both float64, and the bound on the difference in each block.

    No entry of a block of scale s is farther off than `coarseness` times s: s/254 for linear codes, s/510 for unsigned
    ones, s times half the widest gap between the entries of a dynamic codebook.
    """

    exact: Tensor
    stored: Tensor
    scales: Tensor  # [blocks]
    sizes: Tensor  # [blocks], elements of each
    coarseness: float

    @property
    def distance(self) -> float:
        """Frobenius norm of the difference."""
        return float(torch.linalg.vector_norm(self.stored - self.exact))

    @property
    def farthest(self) -> float:
        """Bound on the Frobenius norm: every entry as far off as its block allows."""
        return self.coarseness * math.sqrt(float((self.sizes * self.scales.square()).sum()))


def round_trip(state: Tensor, codec: Blockwise) -> Rounded:
    """Store and restore a float32 state."""
    parts = codec.encode(state)
    elements = state.numel()
    scales = parts["scales"].double()
    sizes = torch.full_like(scales, codec.block_size)
    sizes[-1] = elements - codec.block_size * (len(scales) - 1)
    return Rounded(state.double(), codec.decode(parts).double(), scales, sizes, coarseness(codec))


def coarseness(codec: Blockwise) -> float:
    """Return the largest distance of a number in [-1, 1], or [0, 1] if unsigned, from the nearest value of a code."""
    if codec.kind == "linear":
        return 1 / 254 if codec.signed else 1 / 510
    values = dynamic_codebook(codec.signed).double()
    lowest = -1.0 if codec.signed else 0.0
    return max(float(values.diff().max()) / 2, float(values[0]) - lowest, 1 - float(values[-1]))


def rounding_values(rounded: Rounded) -> Iterator[Value]:
    """Yield the relative error of the whole state, and the largest of one entry in units of its block's scale.

    Bounds: |Q(x) - x| <= c s in a block of scale s, c the coarseness, and so |Q(x) - x|_F <= c sqrt(sum of n s²).
    Blocks of scales below 3e-36 are left out of the second: the steps between their codes are no normal float32.
    """
    norm = float(torch.linalg.vector_norm(rounded.exact))
    yield Value("relative_error", rounded.distance / norm, rounded.farthest / norm)
    scales = rounded.scales.repeat_interleave(rounded.sizes.long())  # [elements]
    error = (rounded.stored - rounded.exact).abs().flatten()
    used = scales >= _LEAST_SCALE
    if used.any():
        yield Value("largest_error", float((error[used] / scales[used]).max()), rounded.coarseness)
