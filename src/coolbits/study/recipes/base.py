"""What all recipes share."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Recipe(BaseModel):
    """Base of every recipe and of every part of the study file: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        """Name the allowed keys beside an unknown one, which pydantic alone does not."""
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}; allowed: {', '.join(cls.model_fields) or 'none'}")
        return value

    def identity(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values, every field present: the text that is fingerprinted."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, identity: dict[str, Any]) -> Self:
        """Read back what `identity` gave."""
        return cls.model_validate(identity)
