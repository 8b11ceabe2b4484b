"""How optimizer states are stored between updates.

An update decodes a state, computes the new state and the new weights from it in float32, and encodes the new state: the
weights never see the rounding of the state of their own update, only that of the one before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from coolbits.optim.codebook import dynamic_codebook, nearest

Parts = Mapping[str, Tensor]
# The states whose codes need no sign.
NEVER_NEGATIVE = frozenset({"exp_avg_sq"})


class StateCodec(Protocol):
    """Stores one float32 state tensor as named parts.

    `decode(encode(x))` has the shape of `x` and is close to it. Names are stable: in a saved state a part is called
    "<parameter>.<state>.<layout>.<part>", so that one codec's parts are not read as another's; without layout and part,
    both "", it is the state itself. `label` says to a reader how the state is stored.
    """

    @property
    def label(self) -> str: ...

    @property
    def layout(self) -> str: ...

    def zeros(self, like: Tensor) -> dict[str, Tensor]:
        """Return the parts that store a state of zeros, of the shape and on the device of `like`."""
        ...

    def encode(self, state: Tensor) -> dict[str, Tensor]:
        """Return the parts that store `state`; they may share its memory."""
        ...

    def decode(self, parts: Parts) -> Tensor:
        """Return the state, float32; it may share memory with `parts`, which the update then overwrites in place."""
        ...


@dataclass(frozen=True)
class Float32:
    """Stores a state as it is, without copies. `below` is why, if it is for having fewer elements than that."""

    below: int | None = None

    @property
    def label(self) -> str:
        """How the state is stored, and why."""
        return "float32" if self.below is None else f"float32 (under {self.below:,} elements)"

    @property
    def layout(self) -> str:
        """Nothing, for its one part is the state itself."""
        return ""

    def zeros(self, like: Tensor) -> dict[str, Tensor]:
        """Return zeros as the one part named ""."""
        return {"": torch.zeros_like(like, dtype=torch.float32)}

    def encode(self, state: Tensor) -> dict[str, Tensor]:
        """Return `state` as the one part named ""."""
        return {"": state}

    def decode(self, parts: Parts) -> Tensor:
        """Return that part itself."""
        return parts[""]


@dataclass(frozen=True)
class Blockwise:
    """Stores a state as 8-bit "codes", in its shape, and float32 "scales", one for each block of its elements in order.

    A scale is the block's largest magnitude s. `linear`: the code of x is 127 x/s rounded to the nearest integer, half
    to even (int8); unsigned, for states that are never negative, 255 x/s (uint8). `dynamic`: the index of the entry of
    the codebook nearest to x/s, of two the lower (uint8). The quotient is a float32. The last block may be short; no
    block is exempt. A block of zeros has the scale 0 and decodes to zeros.
    """

    kind: Literal["linear", "dynamic"]
    signed: bool
    block_size: int = 2048

    @property
    def label(self) -> str:
        """How the state is stored."""
        return f"8-bit {self.kind} (block {self.block_size:,})"

    @property
    def layout(self) -> str:
        """All that decides what a part means: `linear-2048`, `dynamic-unsigned-256`."""
        return f"{self.kind}{'' if self.signed else '-unsigned'}-{self.block_size}"

    @property
    def levels(self) -> int:
        """The largest linear code."""
        return 127 if self.signed else 255

    @property
    def dtype(self) -> torch.dtype:
        """The type of the codes."""
        return torch.int8 if self.kind == "linear" and self.signed else torch.uint8

    def zeros(self, like: Tensor) -> dict[str, Tensor]:
        """Return "codes" and "scales" of a state of zeros, without making the state."""
        zero = self.round(torch.zeros(1, device=like.device))["codes"]
        scales = torch.zeros(-(-like.numel() // self.block_size), device=like.device)
        return {"codes": zero.expand(like.numel()).contiguous().view(like.shape), "scales": scales}

    def encode(self, state: Tensor) -> dict[str, Tensor]:
        """Return "codes" and "scales" of a float32 state of any shape.

        Raises:
            ValueError: if there is a NaN or an infinity, or in an unsigned state a negative number.
        """
        parts = self.round(state)
        if not state.is_meta:
            if not parts["scales"].isfinite().all():
                raise ValueError("a state with NaN or infinity has no codes")
            if not self.signed and (state < 0).any():
                raise ValueError("a state with negative numbers has no unsigned codes")
        return parts

    def round(self, state: Tensor) -> dict[str, Tensor]:
        """Return what `encode` does, unchecked: a block with a NaN or an infinity then decodes to no finite number."""
        flat = state.reshape(-1)
        blocks = functional.pad(flat, (0, -len(flat) % self.block_size)).view(-1, self.block_size)
        scales = blocks.abs().amax(1)  # [blocks]
        ratios = blocks / torch.where(scales == 0, 1.0, scales)[:, None]  # [blocks, block_size]
        if self.kind == "dynamic":
            codes = nearest(ratios, self.signed)
        else:
            codes = (ratios * self.levels).round().to(self.dtype)
        return {"codes": codes.view(-1)[: len(flat)].reshape(state.shape), "scales": scales}

    def decode(self, parts: Parts) -> Tensor:
        """Return the state, float32, in the shape of the codes: code * (s / 127), (s / 255), or codebook[code] * s."""
        codes, scales = parts["codes"], parts["scales"]
        if self.kind == "dynamic":
            values, units = dynamic_codebook(self.signed).to(codes.device)[codes.int()], scales
        else:
            values, units = codes.float(), scales / self.levels
        spread = units.repeat_interleave(self.block_size, output_size=len(units) * self.block_size)
        return values * spread[: codes.numel()].view(codes.shape)
