"""What a crate holds: a study's artifacts, each found whole, and files with digest and size, packed or described."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import places
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.manifest import MANIFEST, RECORD
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import ACCEPTED
from coolbits.provenance.findings import some
from coolbits.provenance.lineage import Artifact, Key, read_artifact

SNAKEFILE = "Snakefile"
SOURCE = "src"
README = "README.md"
RESULTS = "results"
_WORKFLOW = ("workflow", "envs", SOURCE, SNAKEFILE, README, "LICENSE", "pyproject.toml")
_CACHES = ("__pycache__", ".egg-info")
_SHOWN = 3


@dataclass(frozen=True)
class Content:
    """A file at `path` of the crate: where it lies now, its SHA-256 (hex) and bytes; `packed`, or only described."""

    path: str
    source: Path
    sha256: str
    bytes: int
    packed: bool = True

    @property
    def identity(self) -> str:
        """Its @id: a path in the crate, or, of a file that is left out, a name within the metadata."""
        return quote(self.path) if self.packed else f"#{quote(self.path)}"


def find_artifacts(nodes: Iterable[Node], root: Path, study: Path) -> dict[Key, Artifact]:
    """Return the artifacts of all `nodes` of a study from the results folder `root`, by key, in the order of the nodes.

    Sizes of files are compared here, digests when the files are packed.

    Raises:
        CoolbitsError: if one is missing, damaged, or not made by its node's recipe from these parents.
    """
    if not root.is_dir():
        raise CoolbitsError(f"{root}: no results folder; say with --results where it is")
    wanted = {(node.kind, node.name): node for node in nodes}
    found = {key: read_artifact(root, key) for key in wanted}
    wrong = [f"{found[key].label} ({fault})" for key, node in wanted.items() if (fault := _fault(node, found))]
    if wrong:
        raise CoolbitsError(
            f"{root}: {len(wrong):,} of {len(wanted):,} artifacts that {study} wants are missing or other ones: "
            f"{some(wrong, _SHOWN)}; run `snakemake` first"
        )
    return found


def _fault(node: Node, found: dict[Key, Artifact]) -> str | None:
    artifact = found[node.kind, node.name]
    manifest = artifact.manifest
    if artifact.faults:
        return f"{artifact.faults[0].where[0].rpartition('/')[2]}: {artifact.faults[0].said}"
    if manifest is None:
        return "not there"
    if manifest.fingerprint != node.fingerprint:
        return "made by another recipe"
    for role, ref in node.parents.items():
        digest = found[ref.kind, ref.name].digest
        if digest and manifest.parents.get(role, {}).get("digest") != digest:
            return f"made from another {ref.kind}/{ref.name}"
    sizes = {name: stated["bytes"] for name, stated in manifest.files.items()}
    for name in (*sizes, *(artifact.record.beside if artifact.record else ())):
        path = artifact.directory / name
        if not path.is_file():
            return f"{name}: no such file"
        if path.stat().st_size != sizes.get(name, path.stat().st_size):
            return f"{name}: other size"
    return None


def artifact_contents(artifact: Artifact, largest: int | None = None) -> Iterator[Content]:
    """Yield the files of an artifact; those of more than `largest` bytes are only described.

    Its manifest and record always come along: with them, what was left out can be told from anything else.
    """
    digests = {name: stated["sha256"] for name, stated in artifact.manifest.files.items()} if artifact.manifest else {}
    for name, digest in (digests | (artifact.record.beside if artifact.record else {})).items():
        path = artifact.directory / name
        size = path.stat().st_size
        packed = largest is None or size <= largest
        yield Content(f"{RESULTS}/{artifact.label}/{name}", path, digest, size, packed)
    for name in (MANIFEST, RECORD, ACCEPTED):
        if (artifact.directory / name).is_file():
            yield _content(f"{RESULTS}/{artifact.label}/{name}", artifact.directory / name)


def find_workflow(results: Path) -> Path:
    """Return the folder with the Snakefile beside a results folder, or beside a link to it; else what that lies in."""
    beside = [place.parent for place in places(results)]
    return next((folder for folder in beside if (folder / SNAKEFILE).is_file()), beside[0])


def workflow_contents(folder: Path, study: Path) -> list[Content]:
    """Return the files of the workflow in `folder`, and the study file, as they are now.

    Raises:
        CoolbitsError: if there is no Snakefile.
    """
    if not (folder / SNAKEFILE).is_file():
        raise CoolbitsError(f"{folder}: no {SNAKEFILE} in it; say with --workflow in which folder the workflow is")
    files = [path for part in _WORKFLOW for path in (folder / part, *_below(folder / part)) if path.is_file()]
    contents = {path.relative_to(folder).as_posix(): path for path in files} | {study_path(folder, study): study}
    return [_content(name, path) for name, path in contents.items()]


def study_path(folder: Path, study: Path) -> str:
    """Return where in the crate the study file is: where it is in the workflow's folder, else at the top."""
    place = study.resolve()
    inside = place.is_relative_to(folder.resolve())
    return place.relative_to(folder.resolve()).as_posix() if inside else place.name


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        cached = any(part.startswith(".") or part.endswith(_CACHES) for part in parts)
        if path.is_file() and not path.is_symlink() and not cached:
            yield path


def _content(name: str, path: Path) -> Content:
    return Content(name, path, file_digest(path), path.stat().st_size)
