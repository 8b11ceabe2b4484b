"""The tools of a crate's workflow, a command for each kind of artifact, with their inputs, fields and outputs."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rocrate.rocrate import ROCrate

from coolbits.artifacts.hashing import canonical_json
from coolbits.provenance.crate.graph import add, field_of, input_of, output_of, refs, tool, value_of
from coolbits.provenance.crate.software import environments, identity_of, versions
from coolbits.provenance.lineage import Artifact
from coolbits.provenance.recipes import Fields, flatten, say
from coolbits.stages import STAGES

BIOSCHEMAS = "https://bioschemas.org/profiles"
_LONGEST_VALUE = 500
_TYPES = {bool: "Boolean", int: "Integer", float: "Float"}


def fields(artifact: Artifact) -> Fields:
    """Return the recipe's fields by dotted name, save long lists such as a table's rows: its manifest has those."""
    every = flatten(artifact.manifest.recipe if artifact.manifest else {})
    return {name: value for name, value in every.items() if len(canonical_json(value)) <= _LONGEST_VALUE}


def add_tool(crate: ROCrate, kind: str, artifacts: Sequence[Artifact]) -> None:
    """Add the command that made these artifacts of one kind, its parameters, and the values that fields had."""
    values: dict[str, list[Any]] = defaultdict(list)
    for artifact in artifacts:
        for name, value in fields(artifact).items():
            values[name].append(value)
    for name, found in values.items():
        _add_field(crate, kind, name, found)
    inputs = dict.fromkeys(input_of(kind, role) for artifact in artifacts for role in artifact.parents)
    for identity in inputs:
        add_parameter(crate, identity, identity.rpartition("/")[2], "Dataset")
    add_parameter(crate, output_of(kind), kind, "Dataset")
    installed = environments(artifacts)
    add(
        *(crate, tool(kind), "SoftwareApplication"),
        name=f"coolbits {kind}",
        description=f"makes artifacts of kind {kind}; starts in the module {STAGES[kind]}",
        softwareVersion=versions(installed, "coolbits"),
        input=refs([*inputs, *(field_of(kind, name) for name in values)]),
        output=refs([output_of(kind)]),
        softwareRequirements=refs(map(identity_of, installed)),
    )


def add_parameter(crate: ROCrate, identity: str, name: str, kind: str, description: str | None = None) -> None:
    """Add a parameter that takes values, files or folders, as `kind` says."""
    profile = refs([f"{BIOSCHEMAS}/FormalParameter/1.0-RELEASE"])
    named = {"name": name, "description": description, "additionalType": kind}
    add(crate, identity, "FormalParameter", **named, conformsTo=profile)


def _add_field(crate: ROCrate, kind: str, name: str, found: list[Any]) -> None:
    add_parameter(crate, field_of(kind, name), name, _type(found))
    for identity, value in {value_of(kind, name, value): value for value in found}.items():
        plain = value if isinstance(value, int | float) else say(value) or '""'
        add(crate, identity, "PropertyValue", name=name, value=plain, exampleOfWork=refs([field_of(kind, name)]))


def _type(found: list[Any]) -> str:
    """Return the type of schema.org that holds all values of a field."""
    types = {type(value) for value in found}
    return _TYPES.get(types.pop(), "Text") if len(types) == 1 else "Float" if types == {int, float} else "Text"
