"""The long table of checked statements: one row a number, its bound beside it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from coolbits.optim.codecs import Blockwise

Row = dict[str, Any]

_TYPES = {
    "check": "str",
    "source": "str",
    "trajectory": "str",
    "optimizer": "str",
    "tensor": "str",
    "rows": "Int64",
    "columns": "Int64",
    "codec": "str",
    "block": "Int64",
    "seed": "Int64",
    "step": "Int64",
    "quantity": "str",
    "value": "float64",
    "bound": "float64",
    "holds": "boolean",
}
# Values of codes are float32: about 1e-7 of a block's scale, beside bounds of 0.004 of it.
_SLACK = 1e-4


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from, in the words of its rows; `step` is that of the checkpoint, or of a made-up run."""

    source: str
    seed: int
    step: int
    trajectory: str | None = None
    optimizer: str | None = None
    tensor: str | None = None


@dataclass(frozen=True)
class Value:
    """A measured quantity, and the bound that a theorem puts on it, if one does."""

    quantity: str
    value: float
    bound: float | None = None


def describe(
    check: str, origin: Origin, shape: tuple[int, ...], values: Iterable[Value], codec: Blockwise | None = None
) -> Iterator[Row]:
    """Yield a row for each value, of a matrix of `shape` that `codec` stores."""
    rows, columns = shape
    where = asdict(origin) | {"rows": rows, "columns": columns, "codec": None, "block": None}
    if codec is not None:
        where |= {"codec": codec.kind if codec.signed else f"{codec.kind}-unsigned", "block": codec.block_size}
    for item in values:
        holds = None if item.bound is None else item.value <= item.bound * (1 + _SLACK)
        yield {"check": check} | where | asdict(item) | {"holds": holds}


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the rows as a table: columns in one order, typed."""
    return pd.DataFrame(list(rows), columns=list(_TYPES)).astype(_TYPES)
