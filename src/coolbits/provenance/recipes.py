"""Recipes side by side: what all have in common, said once, and a row for each group with what differs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coolbits.artifacts.hashing import canonical_json
from coolbits.provenance.findings import some

Fields = dict[str, Any]
_SHOWN_VALUES = 4


@dataclass(frozen=True)
class Contrast:
    """Groups of recipes: `common` fields, and of each group its label and its values in the fields that differ."""

    common: Fields
    groups: list[tuple[str, dict[str, str]]]


def flatten(recipe: Mapping[str, Any], prefix: str = "") -> Fields:
    """Return the fields of a recipe by dotted name; lists stay whole."""
    fields: Fields = {}
    for name, value in recipe.items():
        if isinstance(value, dict) and value:
            fields |= flatten(value, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = value
    return fields


def contrast(groups: Sequence[tuple[str, list[Fields]]]) -> Contrast:
    """Tell what all recipes have in common from what differs within or between groups."""
    every = [fields for _, recipes in groups for fields in recipes]
    names = list(dict.fromkeys(name for fields in every for name in fields))
    common = {name: every[0][name] for name in names if _same(every, name)}
    differing = [name for name in names if name not in common]
    rows = [
        (label, {name: values(fields[name] for fields in recipes if name in fields) for name in differing})
        for label, recipes in groups
    ]
    return Contrast(common, rows)


def values(found: Iterable[Any]) -> str:
    """Say the distinct values of a field in one cell."""
    distinct = {canonical_json(value): value for value in found}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct.values())
    ordered = sorted(distinct.values()) if numbers else [distinct[text] for text in sorted(distinct)]
    shown = [say(value) for value in ordered]
    if numbers and len(shown) > _SHOWN_VALUES:
        return f"{shown[0]} to {shown[-1]} ({len(shown)})"
    return some(shown, _SHOWN_VALUES)


def say(value: Any) -> str:
    """Write a value as a study file would have it."""
    return value if isinstance(value, str) else canonical_json(value)


def _same(every: list[Fields], name: str) -> bool:
    return all(name in fields for fields in every) and len({canonical_json(fields[name]) for fields in every}) == 1
