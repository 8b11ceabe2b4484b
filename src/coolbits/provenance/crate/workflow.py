"""The plan in a crate's metadata: the Snakefile as workflow, its steps, and whose output is whose input."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rocrate.rocrate import ROCrate

from coolbits.provenance.crate.contents import SNAKEFILE
from coolbits.provenance.crate.graph import add, input_of, output_of, refs, step, tool
from coolbits.provenance.crate.software import add_engine, add_environments, commits, environments
from coolbits.provenance.crate.tools import BIOSCHEMAS, add_parameter, add_tool
from coolbits.provenance.lineage import Artifact

STUDY = "#input/study"
# What people look at, best first, and what a parameter of that kind holds: a figure's files, the folders of others.
OUTPUTS = {"figure": "File", "claims": "Dataset", "table": "Dataset"}
_TYPES = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]


def study_output(kind: str) -> str:
    """Return the @id of the workflow's parameter that a study's results of a kind fill."""
    return output_of(f"study/{kind}")


def add_workflow(crate: ROCrate, kinds: Mapping[str, Sequence[Artifact]]) -> None:
    """Add the Snakefile as the workflow that made these artifacts, given by kind, each after what it is made from."""
    installed = environments(artifact for group in kinds.values() for artifact in group)
    add_environments(crate, installed)
    add_engine(crate, installed)
    connections = _add_connections(crate, kinds)
    for place, (kind, artifacts) in enumerate(kinds.items()):
        add_tool(crate, kind, artifacts)
        links = {"workExample": refs([tool(kind)]), "connection": refs(connections[kind])}
        says = f"make the artifacts of kind {kind}"
        add(crate, step(kind), "HowToStep", name=kind, description=says, position=str(place), **links)
    add_parameter(crate, STUDY, "study", "File", "the study file: everything wanted")
    results = [kind for kind in OUTPUTS if kind in kinds]
    for kind in results:
        add_parameter(crate, study_output(kind), kind, OUTPUTS[kind])
    facts: dict[str, Any] = {
        "name": "coolbits",
        "description": "from text to claims; its files are as now, its version is the commit that made the artifacts",
        "version": commits(installed),
        "conformsTo": refs([f"{BIOSCHEMAS}/ComputationalWorkflow/1.0-RELEASE"]),
        "hasPart": refs(map(tool, kinds)),
        "step": refs(map(step, kinds)),
        "input": refs([STUDY]),
        "output": refs(map(study_output, results)),
    }
    crate.add_workflow(dest_path=SNAKEFILE, main=True, lang="snakemake", properties={"@type": _TYPES} | facts)


def _add_connections(crate: ROCrate, kinds: Mapping[str, Sequence[Artifact]]) -> dict[str, list[str]]:
    """Add which kind's artifacts fill which input; return the connections by the kind that receives."""
    pairs = {
        (source, kind, input_of(kind, role))
        for kind, artifacts in kinds.items()
        for artifact in artifacts
        for role, (source, _) in artifact.parents.items()
    }
    found: dict[str, list[str]] = defaultdict(list)
    for source, kind, target in sorted(pairs):
        identity = f"#connection/{source}/{target.removeprefix('#input/')}"
        ends = {"sourceParameter": refs([output_of(source)]), "targetParameter": refs([target])}
        found[kind].append(add(crate, identity, "ParameterConnection", **ends))
    return found
