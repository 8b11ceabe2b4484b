"""How optimizer states are stored between updates.

An update decodes a state, computes the new state and the new weights from it in float32, and encodes the new state: the
weights never see the rounding of the state of their own update, only that of the one before.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class StateCodec(Protocol):
    """Stores one float32 state tensor as named parts.

    `decode(encode(x))` has the shape of `x` and is close to it. Part names are stable: they become names in a saved
    state ("<parameter>.<state>.<part>"; the part named "" is the state itself, "<parameter>.<state>").
    """

    def encode(self, state: Tensor) -> dict[str, Tensor]:
        """Return the parts that store `state`; they may share its memory."""
        ...

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the state, float32; it may share memory with `parts`, which the update then overwrites in place."""
        ...


class Float32:
    """Stores a state as it is, without copies."""

    def encode(self, state: Tensor) -> dict[str, Tensor]:
        """Return `state` as the one part named ""."""
        return {"": state}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return that part itself."""
        return parts[""]
