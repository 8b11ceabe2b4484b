"""What all recipes share."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Recipe(BaseModel):
    """Base of every recipe and of every part of the study file: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def identity(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values, every field present: the text that is fingerprinted."""
        return self.model_dump(mode="json")

    @classmethod
    def read(cls, identity: dict[str, Any]) -> Self:
        """Read back what `identity` gave."""
        return cls.model_validate(identity)
