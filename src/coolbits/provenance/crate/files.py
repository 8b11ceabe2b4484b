"""Files and folders in a crate's metadata: digests, sizes, formats, captions, and which parameters they fill."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rocrate.model import File
from rocrate.rocrate import ROCrate

from coolbits.artifacts.manifest import BESIDE, MANIFEST, RECORD
from coolbits.artifacts.store import ACCEPTED
from coolbits.provenance.crate.contents import README, RESULTS, SOURCE, Content
from coolbits.provenance.crate.graph import add, output_of, refs
from coolbits.provenance.crate.workflow import OUTPUTS, STUDY, study_output
from coolbits.provenance.lineage import Artifact

CAPTION = "caption.txt"
_LEFT_OUT = "left out of this crate; size and digest tell it from any other file"
_ABOUT = {
    MANIFEST: "what the artifact is: recipe, parents, digests of files, outcome",
    RECORD: "how the artifact came about: code, packages, commit, machine, times",
    ACCEPTED: "who declared the artifact valid under other code than made it, and why",
    **dict.fromkeys(BESIDE, "measured while the artifact was made: of this run, and no content of the artifact"),
}
_PICTURES = (".svg", ".png")
_CODE = (".smk", ".py", ".sh")
_FORMATS = {
    "": "text/plain",
    ".html": "text/html",
    ".jinja": "text/plain",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".lock": "text/plain",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".py": "text/x-python",
    ".rst": "text/x-rst",
    ".sh": "text/x-shellscript",
    ".smk": "text/x-python",
    ".svg": "image/svg+xml",
    ".toml": "application/toml",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}
_BYTES = "application/octet-stream"


def outcome(artifact: Artifact) -> str:
    """Say how an artifact came out: what diverged or fell back is never hidden."""
    summary = artifact.manifest.summary if artifact.manifest else {}
    fallbacks = summary.get("fallbacks")
    fell = f"; {fallbacks} modules fell back to another method" if fallbacks else ""
    if summary.get("outcome") == "diverged":
        return f"diverged at step {summary.get('diverged_step', 'unknown')}: there are no weights behind it{fell}"
    return f"{summary.get('outcome', 'complete')}{fell}"


def pictures(artifact: Artifact, contents: Iterable[Content]) -> list[str]:
    """Return the @ids of a figure's pictures, and nothing for another kind of artifact."""
    found = [content.identity for content in contents if PurePosixPath(content.path).suffix in _PICTURES]
    return found if artifact.kind == "figure" else []


def add_artifact(crate: ROCrate, artifact: Artifact, contents: Sequence[Content], fills: Iterable[str]) -> None:
    """Add an artifact's folder, which fills the parameters `fills`, and its files; pictures bear their caption."""
    caption, shown = _caption(artifact), pictures(artifact, contents)
    picture = {"@type": ["File", "ImageObject"], "caption": caption, "exampleOfWork": refs([study_output("figure")])}
    for content in contents:
        _add_file(crate, content, picture if content.identity in shown else {})
    results = [study_output(artifact.kind)] if OUTPUTS.get(artifact.kind) == "Dataset" else []
    says = {
        "name": artifact.label,
        "description": f"{caption} Outcome: {outcome(artifact)}.".strip(),
        "identifier": artifact.manifest.fingerprint if artifact.manifest else "",
        "exampleOfWork": refs([output_of(artifact.kind), *fills, *results]),
        "hasPart": refs(content.identity for content in contents),
    }
    crate.add_dataset(dest_path=f"{RESULTS}/{artifact.label}", properties=says)


def add_workflow_files(crate: ROCrate, contents: Iterable[Content], study: str) -> list[str]:
    """Add the workflow's files, the study's among them, and the folder of its package; return their @ids."""
    package = {"name": "coolbits", "description": "the package whose commands are the workflow's tools, as it is now"}
    workflow, found = crate.mainEntity, []
    for content in contents:
        if content.path == workflow.id:
            for name, value in _facts(content).items():
                workflow[name] = value
        elif content.path.startswith(f"{SOURCE}/"):
            found.append(f"{SOURCE}/")
        else:
            found.append(_add_file(crate, content, _role(crate, content.path, study)))
    if f"{SOURCE}/" in found:
        crate.add_dataset(dest_path=SOURCE, properties=package)
    return found


def _role(crate: ROCrate, path: str, study: str) -> dict[str, Any]:
    """Say what a file of the workflow is in it."""
    if path == study:
        return {"description": "the study: everything wanted", "exampleOfWork": refs([STUDY])}
    if path == README:
        return {"about": refs([crate.root_dataset.id])}
    if PurePosixPath(path).suffix in _CODE:
        belongs = {"isPartOf": refs([crate.mainEntity.id]), "version": crate.mainEntity["version"]}
        return {"@type": ["File", "SoftwareSourceCode"], **belongs}
    return {}


def _add_file(crate: ROCrate, content: Content, says: Mapping[str, Any]) -> str:
    name = PurePosixPath(content.path).name
    about = _ABOUT.get(name, "") if content.packed else _LEFT_OUT
    stated = {"name": name, **({"description": about} if about else {}), **_facts(content), **says}
    if content.packed:
        return crate.add(File(crate, dest_path=content.path, properties=stated)).id
    return add(crate, content.identity, "File", **stated)


def _facts(content: Content) -> dict[str, str]:
    kind = _FORMATS.get(PurePosixPath(content.path).suffix, _BYTES)
    return {"sha256": content.sha256, "contentSize": str(content.bytes), "encodingFormat": kind}


def _caption(artifact: Artifact) -> str:
    path = artifact.directory / CAPTION
    return (
        path.read_text(encoding="utf-8", errors="replace").strip()
        if artifact.kind == "figure" and path.is_file()
        else ""
    )
