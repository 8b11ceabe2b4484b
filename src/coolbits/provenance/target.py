"""Targets: the artifacts that a path means, be it a folder, a file in one, or a figure that was found elsewhere."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import places
from coolbits.artifacts.hashing import file_digest
from coolbits.provenance.findings import Finding
from coolbits.provenance.lineage import Artifact, Key, artifacts_below, folders_below, is_artifact, read_artifact
from coolbits.stages import STAGES

_SVG_IDENTIFIER = re.compile(rb"<dc:identifier>\s*coolbits:([0-9a-f]{64})\s*</dc:identifier>")
_PNG_TEXT = "coolbits"


@dataclass(frozen=True)
class Target:
    """A results folder and the artifacts in it that were meant; `findings` is what was noticed on the way."""

    root: Path
    keys: tuple[Key, ...]
    findings: tuple[Finding, ...] = ()


def find_target(path: Path, results: Path) -> Target:
    """Return what `path` means: an artifact's folder or a file in it, a folder of artifacts, or a figure's file.

    A figure's file that lies outside of its artifact is looked for in `results` by the digest in its metadata. Links
    inside a results folder may lead to other disks: the path as it is given counts before what it leads to.

    Raises:
        CoolbitsError: if it means nothing.
    """
    if not path.exists():
        raise CoolbitsError(f"{path}: no such file or folder")
    around = (folder for place in places(path) for folder in (place, *place.parents))
    if found := _find_root(filter(is_artifact, around)):
        root, folder = found
        return Target(root.resolve(), (_key(folder, root),))
    return _folder(path) if path.is_dir() else _figure(path, results)


def find_artifact(path: Path, results: Path) -> Target:
    """Return what `path` means where it means one artifact, as in `find_target`.

    Raises:
        CoolbitsError: if it means none or several, or the artifact has lost its manifest.
    """
    target = find_target(path, results)
    if len(target.keys) != 1:
        raise CoolbitsError(f"{path}: {len(target.keys)} artifacts; name the folder of one, with a manifest.json in it")
    if read_artifact(target.root, target.keys[0]).manifest is None:
        raise CoolbitsError(f"{path}: neither manifest.json nor record.json can be read; `coolbits audit` says why")
    return target


def _folder(path: Path) -> Target:
    both = places(path)
    if found := _find_root(folder for place in both for folder in _artifacts_in(place)):
        root, _ = found
        for place in both:
            if place.is_relative_to(root):
                return Target(root.resolve(), tuple(artifacts_below(root, place)))
    raise CoolbitsError(f"{path}: no artifacts in it; name a results folder, or a folder or file in one")


def _artifacts_in(place: Path) -> Iterator[Path]:
    kinds = [place / kind for kind in STAGES if (place / kind).is_dir()]
    for below in kinds or [place]:
        yield from filter(is_artifact, folders_below(below))


def _find_root(folders: Iterable[Path]) -> tuple[Path, Path] | None:
    """Return the results folder above artifacts, and the first artifact that tells it.

    It is as a manifest has it, or else above the last folder named as a kind.
    """
    guess = None
    for folder in folders:
        for root in folder.parents:
            kind, *name = folder.relative_to(root).parts
            if kind in STAGES and name:
                manifest = read_artifact(root, _key(folder, root)).manifest
                if manifest and (manifest.kind, manifest.name) == _key(folder, root):
                    return root, folder
                guess = guess or (root, folder)
    return guess


def _key(folder: Path, root: Path) -> Key:
    kind, *name = folder.relative_to(root).parts
    return kind, "/".join(name)


def _figure(path: Path, results: Path) -> Target:
    digest = figure_digest(path)
    if digest is None:
        raise CoolbitsError(f"{path}: neither in an artifact nor a figure's SVG or PNG with a coolbits digest in it")
    folder = results / "figure"
    if not folder.is_dir():
        raise CoolbitsError(f"{results}: no results folder with figures; say with --results where it is")
    root = results.resolve()
    for key in artifacts_below(root, root / folder.name):
        artifact = read_artifact(root, key)
        if artifact.manifest and artifact.manifest.summary.get("lineage") == digest:
            return Target(root, (key,), (_compared(path, artifact),))
    raise CoolbitsError(
        f"{path}: its lineage {digest[:8]} is that of no figure in {results}; it was drawn in another results folder, "
        "or from data, options or code that have changed since"
    )


def figure_digest(path: Path) -> str | None:
    """Return the lineage digest in a figure file's metadata, or None if it has none."""
    if path.suffix.lower() == ".svg":
        match = _SVG_IDENTIFIER.search(path.read_bytes())
        return match[1].decode() if match else None
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
            text = picture.info.get(_PNG_TEXT)
    except (OSError, ValueError, SyntaxError):
        return None
    return text if isinstance(text, str) else None


def _compared(path: Path, artifact: Artifact) -> Finding:
    files = artifact.manifest.files if artifact.manifest else {}
    names = [name for name in files if Path(name).suffix == path.suffix.lower()]
    same = [name for name in names if files[name]["sha256"] == file_digest(path)]
    if same:
        return Finding("source", (str(path),), f"byte for byte {artifact.label}/{same[0]}", information=True)
    said = f"says that it is {artifact.label}, but its bytes are not: it was edited, or saved by another program"
    return Finding("changed", (str(path),), said)
