"""The graph of a crate's metadata: how its entities are named, and how one is added."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from coolbits.artifacts.hashing import digest_of
from coolbits.provenance.crate.contents import RESULTS

_TERMS = "https://w3id.org/ro/terms/workflow-run#"
# Of the profiles' terms, those used here that the context of RO-Crate 1.1 lacks.
EXTRA_TERMS = {
    name: f"{_TERMS}{name}"
    for name in ("ParameterConnection", "connection", "environment", "sha256", "sourceParameter", "targetParameter")
}


def add(crate: ROCrate, identity: str, kind: str | list[str], **properties: Any) -> str:
    """Add an entity that is no file of the crate; properties that are None or empty are left out. Return its @id."""
    stated = {name: value for name, value in properties.items() if value not in (None, "", [])}
    crate.add(ContextEntity(crate, identity, properties={"@type": kind} | stated))
    return identity


def refs(identities: Iterable[str]) -> Any:
    """Return references, each once, in order: a list, or as RO-Crate wants it, the one."""
    found = [{"@id": identity} for identity in dict.fromkeys(identities)]
    return found[0] if len(found) == 1 else found


def quoted(path: str) -> str:
    """Return a path or a name as an @id has it."""
    return quote(path)


def tool(kind: str) -> str:
    """Return the @id of the command that makes artifacts of a kind."""
    return f"#coolbits-{kind}"


def step(kind: str) -> str:
    """Return the @id of the workflow's step of a kind."""
    return f"#step/{kind}"


def input_of(kind: str, role: str) -> str:
    """Return the @id of a tool's parameter that parents fill; roles that are only numbered are one parameter."""
    name, _, number = role.rpartition(".")
    return f"#input/{kind}/{quote(name if number.isdigit() else role)}"


def output_of(kind: str) -> str:
    """Return the @id of the parameter that a tool's artifacts fill."""
    return f"#output/{kind}"


def field_of(kind: str, name: str) -> str:
    """Return the @id of a tool's parameter that is a field of the recipe."""
    return f"#recipe/{kind}/{quote(name)}"


def value_of(kind: str, name: str, value: Any) -> str:
    """Return the @id of one value of such a field, which all recipes with it share."""
    return f"#value/{kind}/{quote(name)}/{digest_of(value)[:12]}"


def run_of(label: str) -> str:
    """Return the @id of the action that made an artifact, named by its path below the results folder."""
    return f"#run/{quote(label)}"


def folder_of(label: str) -> str:
    """Return the @id of an artifact's folder."""
    return quote(f"{RESULTS}/{label}/")
