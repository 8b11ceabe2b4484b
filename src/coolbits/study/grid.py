"""Grids: any field of a run may be a list, and the run then stands for every combination."""

from itertools import product
from math import prod
from typing import Any

from coolbits.artifacts.errors import CoolbitsError

MOST = 10_000


def expand(value: dict[str, Any], whole: frozenset[str]) -> list[dict[str, Any]]:
    """Return every combination of the lists in `value`, at any depth, in the order written, the last key fastest.

    Keys in `whole` keep their value as it is: a list there is one value.

    Raises:
        CoolbitsError: if a list is empty, or there are more than `MOST` combinations, naming the key below `value`.
    """
    choices = [_choices(key, item, whole) for key, item in value.items()]
    if (points := prod(map(len, choices))) > MOST:
        raise CoolbitsError(f": a grid of {points:,} points; at most {MOST:,} are allowed")
    return [dict(zip(value, combination, strict=True)) for combination in product(*choices)]


def _choices(key: str, item: Any, whole: frozenset[str]) -> list[Any]:
    if key in whole:
        return [item]
    if isinstance(item, dict):
        try:
            return list(expand(item, whole))
        except CoolbitsError as error:
            raise CoolbitsError(f".{key}{error}") from None
    if item == []:
        raise CoolbitsError(f".{key}: an empty list, which leaves nothing to run; give a value, or several")
    if isinstance(item, list):
        return [choice for element in item for choice in _choices(key, element, whole)]
    return [item]


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `over` on top, dictionaries merged key by key.

    A dictionary that names another `kind` (or `preset`) replaces the default whole: its other keys would not fit.
    """
    merged = dict(base)
    for key, item in over.items():
        below = merged.get(key)
        if isinstance(item, dict) and isinstance(below, dict) and not _differs(item, below):
            merged[key] = merge(below, item)
        else:
            merged[key] = item
    return merged


def _differs(item: dict[str, Any], below: dict[str, Any]) -> bool:
    return any(name in item and item[name] != below.get(name) for name in ("kind", "preset"))
