"""Writes a study's results as an RO-Crate: all artifacts, what made them from what, and the workflow that did."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rocrate.rocrate import ROCrate

from coolbits.artifacts.errors import CoolbitsError
from coolbits.provenance.crate.archive import write_archive
from coolbits.provenance.crate.contents import (
    Content,
    artifact_contents,
    find_artifacts,
    study_path,
    workflow_contents,
)
from coolbits.provenance.crate.files import add_artifact, add_workflow_files, pictures
from coolbits.provenance.crate.graph import EXTRA_TERMS, add, folder_of, input_of, quoted, refs
from coolbits.provenance.crate.runs import add_job, add_run, add_study_run, span
from coolbits.provenance.crate.workflow import OUTPUTS, add_workflow
from coolbits.provenance.lineage import Artifact, Key
from coolbits.study.plan import Plan

LICENSE = "https://spdx.org/licenses/MIT"
# The profiles are built on this version; later ones give other names to what a workflow is.
_VERSION = "1.1"
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_Files = Mapping[Key, Sequence[Content]]


@dataclass(frozen=True)
class Order:
    """What is wanted: the plan of `study`, its results in `root`, the workflow's folder, and how much to pack.

    Files of artifacts with more than `largest` bytes are only described; None packs all. `license` is a URL.
    """

    plan: Plan
    study: Path
    root: Path
    workflow: Path
    largest: int | None = None
    license: str = LICENSE


@dataclass(frozen=True)
class Summary:
    """What was written: artifacts, and files and their bytes, packed and left out."""

    artifacts: int
    files: int
    bytes: int
    files_left_out: int
    bytes_left_out: int


def write_crate(order: Order, out: Path) -> Summary:
    """Write the crate of a study's results to the zip file `out`, which appears whole or not at all.

    Raises:
        CoolbitsError: if results are missing, damaged or of another plan, or if `out` cannot be written.
    """
    _check(order, out)
    artifacts = find_artifacts(order.plan.nodes, order.root, order.study)
    files = {key: list(artifact_contents(artifact, order.largest)) for key, artifact in artifacts.items()}
    workflow = workflow_contents(order.workflow, order.study)
    metadata = describe(order, artifacts, files, workflow).metadata.generate()
    contents = [*workflow, *(content for group in files.values() for content in group)]
    write_archive(out, json.dumps(metadata, indent=1, sort_keys=True, ensure_ascii=False), contents)
    packed, left_out = ([content.bytes for content in contents if content.packed == kept] for kept in (True, False))
    return Summary(len(artifacts), len(packed), sum(packed), len(left_out), sum(left_out))


def describe(order: Order, artifacts: Mapping[Key, Artifact], files: _Files, workflow: Sequence[Content]) -> ROCrate:
    """Return the crate of these artifacts and of the workflow's files, which are not read, save captions."""
    crate = ROCrate(version=_VERSION)
    crate.metadata.extra_terms = EXTRA_TERMS
    every, labels = list(artifacts.values()), [folder_of(artifact.label) for artifact in artifacts.values()]
    kinds: dict[str, list[Artifact]] = defaultdict(list)
    fills: dict[Key, list[str]] = defaultdict(list)
    for artifact in every:
        kinds[artifact.kind].append(artifact)
        for role, parent in artifact.parents.items():
            fills[parent].append(input_of(artifact.kind, role))
    add_workflow(crate, kinds)
    study = study_path(order.workflow, order.study)
    parts = add_workflow_files(crate, workflow, study)
    for key, artifact in artifacts.items():
        add_artifact(crate, artifact, files[key], fills[key])
    runs = [add_run(crate, artifact) for artifact in every]
    jobs = [add_job(crate, job, artifacts) for kind in kinds for job in order.plan.jobs(kind)]
    results = [picture for key, artifact in artifacts.items() for picture in pictures(artifact, files[key])]
    results += [folder_of(artifact.label) for kind in OUTPUTS for artifact in every if artifact.kind == kind]
    whole = add_study_run(crate, order.plan.study.study, every, jobs, quoted(study), results)
    _describe_root(crate, order, every)
    crate.root_dataset["hasPart"] = refs([crate.mainEntity.id, *parts, *labels])
    crate.root_dataset["mentions"] = refs([*whole, *runs])
    return crate


def _describe_root(crate: ROCrate, order: Order, artifacts: Sequence[Artifact]) -> None:
    root = crate.root_dataset
    diverged = sum(artifact.manifest.diverged for artifact in artifacts if artifact.manifest)
    root["name"] = f"Results of the coolbits study {order.plan.study.study}"
    root["description"] = (
        f"{len(artifacts):,} artifacts, from documents to figures and claims, with what each was made from, by which "
        f"code, where and when. {diverged:,} of them are of runs that diverged, and say so."
    )
    # When the results were done: the same results are the same crate, whenever it is written.
    root["datePublished"] = span(artifacts)["endTime"]
    name = order.license.rstrip("/").rpartition("/")[2]
    root["license"] = refs([add(crate, order.license, "CreativeWork", name=name, description=f"the license {name}")])
    for page, title in _PROFILES.items():
        add(crate, page, "CreativeWork", name=title, version=page.rpartition("/")[2])
    root["conformsTo"] = refs(_PROFILES)


def _check(order: Order, out: Path) -> None:
    if out.suffix != ".zip":
        raise CoolbitsError(f"{out}: a crate is written as one zip file; give a name that ends in .zip")
    if out.is_dir() or not out.parent.is_dir():
        raise CoolbitsError(f"{out}: {'a folder' if out.is_dir() else 'no such folder to write it in'}")
    if out.resolve().is_relative_to(order.root.resolve()):
        raise CoolbitsError(f"{out}: in the results folder, which has only what the workflow makes; write it elsewhere")
    if not order.license.startswith(("https://", "http://")):
        raise CoolbitsError(f"--license {order.license}: not a URL, such as {LICENSE}")
