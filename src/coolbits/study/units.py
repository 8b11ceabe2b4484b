"""Tokens as people write them: `12M`, `1.5B`, `20%` of a run."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kMBT]?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
PERCENT_SCHEMA: dict[str, Any] = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"}
# Far more than any corpus has, and little enough for exact arithmetic in floating point.
MOST_TOKENS = 10**15
_COUNT_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kMBT]?$"}]
}


def parse_tokens(value: Any) -> Any:
    """Read a count of tokens: an integer, or text such as `200k`, `12M`, `1.5B`."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    match = _COUNT.fullmatch(value.strip())
    if not match:
        raise ValueError(f"{value!r} is no count of tokens; write an integer, or 200k, 12M, 1.5B")
    count = Decimal(match[1]) * _UNITS[match[2]]
    if count != int(count):
        raise ValueError(f"{value!r} is not a whole number of tokens")
    return int(count)


def parse_length(value: Any) -> Any:
    """Read a length: tokens as in `parse_tokens`, or a share of the run such as `20%`, which becomes 0.2."""
    percent = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    is_share = percent is not None or (isinstance(value, float) and value < 1)
    try:
        length = float(percent[1]) / 100 if percent else value if is_share else parse_tokens(value)
    except ValueError:
        length = None
    whole = isinstance(length, int) and 0 <= length <= MOST_TOKENS
    if not whole and not (isinstance(length, float) and 0 <= length < 1):
        raise ValueError(f"{value!r} is no length; write tokens (200k) or a percentage of the run below 100 (20%)")
    return length


def _percentage(value: Any) -> Any:
    if not (isinstance(value, str) and _PERCENT.fullmatch(value)):
        raise PydanticCustomError("percentage", "should be a percentage such as 5%")
    return value


Tokens = Annotated[int, BeforeValidator(parse_tokens), Field(gt=0, le=MOST_TOKENS), WithJsonSchema(_COUNT_SCHEMA)]
Length = Annotated[
    int | float,
    BeforeValidator(parse_length),
    WithJsonSchema({"anyOf": [*_COUNT_SCHEMA["anyOf"], PERCENT_SCHEMA]}),
]
Percentage = Annotated[str, BeforeValidator(_percentage), WithJsonSchema(PERCENT_SCHEMA)]


def length_in_tokens(length: int | float, total: int) -> int:
    """Return a `Length` in tokens: itself if an integer, else that share of `total`."""
    return length if isinstance(length, int) else round(length * total)


def si(count: float) -> str:
    """Say a count with an SI-like suffix: 12_000_000 -> `12M`, 288_640 -> `289k`."""
    rounded = float(f"{count:.3g}")  # 999_999 is 1M
    for suffix, factor in reversed(_UNITS.items()):
        if rounded >= factor:
            return f"{rounded / factor:.3g}{suffix}"
    return f"{rounded:.3g}"


def si_bytes(count: float) -> str:
    """Say a count of bytes: 14_200_000_000 -> `14.2 GB`."""
    text = si(count).replace("B", "G")
    number = text.rstrip("kMGT")
    return f"{number} {text.removeprefix(number)}B"


def three_digits(tokens: float) -> int:
    """Return a length as figures and claims take it: those that differ by the rounding to whole steps are one."""
    return round(float(f"{tokens:.3g}"))
