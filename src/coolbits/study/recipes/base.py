"""What all recipes share."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Protocol, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

_HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
_WORDS = {int: "a whole number", float: "a number", str: "text", dict: "keys and values"}


def _hub_id(value: str) -> str:
    if not _HUB_ID.fullmatch(value) or ".." in value:
        raise ValueError(f"{value!r} is no id of the Hugging Face hub; write owner/name")
    return value


HubId = Annotated[str, AfterValidator(_hub_id)]


class _Files(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def sha256(self) -> tuple[str, ...]: ...


_FilesT = TypeVar("_FilesT", bound=_Files)


def one_digest_a_file(recipe: _FilesT) -> _FilesT:
    """Validate, by `model_validator(mode="after")`, a recipe that lists `names` of files and their `sha256`."""
    if len(recipe.names) != len(recipe.sha256):
        raise ValueError(f"{len(recipe.names)} names but {len(recipe.sha256)} digests; each file needs one")
    return recipe


class Recipe(BaseModel):
    """Base of every recipe and of every part of the study file: frozen, unknown keys refused, all numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _explained(cls, value: Any) -> Any:
        """Name the allowed keys beside an unknown one, and refuse `true` for a number: pydantic alone does neither."""
        for key, item in value.items() if isinstance(value, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}; allowed: {', '.join(cls.model_fields) or 'none'}")
            found = [one for one in (item if isinstance(item, list) else [item]) if isinstance(one, bool)]
            if found and not any(kind in (bool, Any) for kind in _types(cls.model_fields[key].annotation)):
                said = "true (so YAML reads yes and on, too)" if found[0] else "false (so YAML reads no and off, too)"
                raise ValueError(f"{key}: should be {_wanted(cls.model_fields[key].annotation)}; found {said}")
        return value

    def identity(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values, every field present: the text that is fingerprinted."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, identity: dict[str, Any]) -> Self:
        """Read back what `identity` gave."""
        return cls.model_validate(identity)


def _wanted(annotation: Any) -> str:
    """Say what a value that may be neither true nor false should be: `a whole number`, `text or 'all'`."""
    parts = list(_types(annotation))
    named = [word for kind, word in _WORDS.items() if kind in parts]
    named += ["keys and values"] * any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts)
    return " or ".join([*named, *(repr(part) for part in parts if isinstance(part, str))])


def _types(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)
