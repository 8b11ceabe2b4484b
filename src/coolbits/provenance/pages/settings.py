"""The page of a study's settings: every key of the study as it was resolved, with the value used, defaults included."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from coolbits.artifacts.hashing import canonical_json, digest_of
from coolbits.provenance.pages.html import Html, document, join, table, tag
from coolbits.provenance.pages.lineage_page import STYLE, resource
from coolbits.provenance.recipes import say
from coolbits.study.schema import Study

_HEADING = ("Key", "Value", "")
Leaf = tuple[str, Any, bool]


def settings_page(study: Study) -> Html:
    """Return the page: a section a key of the study file, a line a key below it; the same study gives the same bytes.

    Of the points of a grid a key has one value, or as many as there are points, in their order.
    """
    title = f"Settings of {study.study}"
    said = (
        "Every key of the study as the workflow used it. Lists in runs have become the points of a grid, presets what "
        "they stand for, counts and lengths numbers; what the file does not give has its default."
    )
    sections = [_section(name, getattr(study, name), name in study.model_fields_set) for name in Study.model_fields]
    body = join([tag("h1", title), tag("p", said, class_="small"), *sections])
    return document(title, body, resource(STYLE), about=settings_digest(study))


def settings_digest(study: Study) -> str:
    """Return the SHA-256 of all that the page says."""
    return digest_of(study.identity())


def leaves(value: Any, name: str = "", given: bool = True) -> Iterator[Leaf]:
    """Yield the keys below a value by dotted name, each with its value as JSON has it, and whether it was given."""
    dot = f"{name}." if name else ""
    if isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from leaves(getattr(value, field), f"{dot}{field}", given and field in value.model_fields_set)
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{dot}{key}", given)
    elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        for place, item in enumerate(value):
            yield from leaves(item, f"{dot}{place}", given)
    else:
        yield name, list(value) if isinstance(value, tuple) else value, given


def _section(name: str, value: Any, given: bool) -> Html:
    parts = [tag("h2", name)]
    if isinstance(value, dict) and any(isinstance(item, tuple) for item in value.values()):
        for key, points in value.items():
            count = f" ({len(points)} points)" if len(points) > 1 else ""
            parts += [tag("h3", key + count), table(_HEADING, _grid(points))]
    elif isinstance(value, dict) and any(isinstance(item, BaseModel) for item in value.values()):
        for key, item in value.items():
            parts += [tag("h3", key), table(_HEADING, _rows(leaves(item)))]
    else:
        parts.append(table(_HEADING, _rows(leaves(value, "" if isinstance(value, BaseModel) else name, given))))
    return tag("section", *parts, id=name, class_="settings")


def _rows(found: Iterator[Leaf]) -> Iterator[tuple[str, str, str]]:
    return ((name, say(value), "" if given else "default") for name, value, given in found)


def _grid(points: tuple[BaseModel, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield a line for each key of the points of a grid; where they differ, their values one after the other."""
    flat = [{name: (value, given) for name, value, given in leaves(point)} for point in points]
    for name in dict.fromkeys(name for fields in flat for name in fields):
        found = [fields[name] for fields in flat if name in fields]
        texts = [say(value) for value, _ in found]
        same = len(found) == len(flat) and len({canonical_json(value) for value, _ in found}) == 1
        yield name, texts[0] if same else " | ".join(texts), "" if any(given for _, given in found) else "default"
