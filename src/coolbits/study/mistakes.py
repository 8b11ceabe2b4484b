"""What pydantic finds wrong, said in one sentence: which key, what should be there, what was found."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from coolbits.study.reading import shown

# Own messages of a whole section begin with the key in it that is meant.
_BELOW = re.compile(r"[a-z_.]+: ")
_KEYS = "should be keys and values"
_WORDS = {
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
    "dict_type": _KEYS,
    "tuple_type": "should be a list",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "string_type": "should be text",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
}


def sentence(error: ValidationError, raw: Any, where: str = "") -> str:
    """Say the first thing wrong with the plain value `raw` that stands at `where`: key, what is allowed, what is found.

    Without it, places are named as pydantic does. Where several forms of a value are allowed and it has none, all are
    said.
    """
    errors = error.errors()
    first, keys = errors[0], tuple(_keys(errors[0], raw))
    place = ".".join(filter(None, (where, *keys)))
    match first["type"]:
        case "missing":
            return f"{place}: missing; it is required"
        case "value_error":
            said = first["msg"].removeprefix("Value error, ")
            return f"{place}{'.' if _BELOW.match(said) else ': '}{said}" if place else said
        case "union_tag_not_found":
            return f"{place}.kind: missing; it is required"
        case "union_tag_invalid":
            given = first["ctx"]
            return f"{place}.kind: should be one of {given['expected_tags']}; found {given['tag']!r}"
    allowed = dict.fromkeys(_allowed(other) for other in errors if tuple(_keys(other, raw)) == keys)
    return f"{place}: {' or '.join(allowed).replace(' or should be ', ' or ')}; found {shown(first['input'])}"


def _allowed(error: ErrorDetails) -> str:
    if error["type"] == "too_short":
        return f"should have {error['ctx']['min_length']} or more entries"
    said = _WORDS.get(error["type"], error["msg"])
    return said.removeprefix("Input ").removeprefix("String ").removeprefix("Value ")


def _keys(error: ErrorDetails, raw: Any) -> Iterator[str]:
    """Yield the keys and places in lists that lead to an error; pydantic's own words for alternatives are left out."""
    parts = error["loc"]
    if raw is None:
        yield from map(str, parts)
        return
    for number, part in enumerate(parts):
        inside = isinstance(raw, dict) and part in raw
        within = isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw)
        if inside or within:
            raw = raw[part]
            yield str(part)
        elif number == len(parts) - 1 and error["type"] == "missing":
            yield str(part)
