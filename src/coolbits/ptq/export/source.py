"""What is exported: a quantized artifact, or what `coolbits quantize` wrote, and the model that it was made from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import places
from coolbits.artifacts.hashing import file_digest, known_digest
from coolbits.artifacts.manifest import MANIFEST, read_manifest
from coolbits.models.files import reading, weight_files
from coolbits.models.quantized import CODES, LAYOUT, REPLACED

QUANTIZATION = "quantization.json"


@dataclass(frozen=True)
class Source:
    """A directory with codes, the model's directory, and what the exported model says of its origin."""

    directory: Path
    model: Path
    provenance: dict[str, Any]


def find_source(directory: Path, model: Path | None) -> Source:
    """Return the source in `directory`; `model` stands in for the model that it names, which must be the same.

    Raises:
        CoolbitsError: if it is no quantized model, holds no weights or others than were written, or the model is
            missing, is another one, or was opened by code of its own.
    """
    if (directory / QUANTIZATION).is_file():
        return _standalone(directory, model)
    if not directory.is_dir():
        raise CoolbitsError(f"{directory}: no such folder; name a quantized artifact, as in results/quantized/*")
    return _artifact(directory, model)


def weights_digests(model: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights in a model's directory, by name."""
    return {path.name: known_digest(path) for path in weight_files(model) if path.is_file()}


def _artifact(directory: Path, model: Path | None) -> Source:
    manifest = read_manifest(directory)
    if manifest.kind != "quantized":
        raise CoolbitsError(f"{directory}: an artifact of kind {manifest.kind!r}; only quantized models are exported")
    if manifest.diverged:
        raise CoolbitsError(f"{directory}: made from a training run that diverged, so there are no weights to export")
    _demand_codes(directory, manifest.files)
    parent = manifest.parents["model"]
    name = Path(parent["kind"]) / parent["name"]
    depth = len(Path(manifest.kind, manifest.name).parts)
    beside = [root / name for place in places(directory) for root in place.parents[depth - 1 : depth]]
    found = model or next(filter(Path.is_dir, beside), name)
    if not found.is_dir():
        raise CoolbitsError(f"{found}: no such folder; say with --model where the model is that was quantized")
    if (found / MANIFEST).is_file() and read_manifest(found).digest != parent["digest"]:
        raise CoolbitsError(f"{found}: another model than the one that {directory} was made from ({parent['name']})")
    own = {"name": manifest.name, "fingerprint": manifest.fingerprint, "manifest": manifest.digest}
    return Source(directory, found, {"artifact": own, "recipe": manifest.recipe, "model": parent})


def _standalone(directory: Path, model: Path | None) -> Source:
    path = directory / QUANTIZATION
    with reading(path, "what `coolbits quantize` writes"):
        made: dict[str, Any] = json.loads(path.read_bytes())
        files, recipe, origin = made["files"], made["recipe"], made["model"]
        found, digests = model or Path(origin["directory"]), origin["sha256"]
        _demand_codes(directory, files)
    if not found.is_dir():
        raise CoolbitsError(f"{found}: no such folder; say with --model where the model is that was quantized")
    if weights_digests(found) != digests:
        raise CoolbitsError(f"{found}: other weights than those that {directory} was made from")
    if origin.get("own_code"):
        raise CoolbitsError(
            f"{directory}: quantized with --trust-remote-code, by code of the model's own; only models of the "
            "library's classes are exported"
        )
    own = {"quantization": file_digest(path)}
    # Records of older versions have no commit.
    told = {key: origin.get(key) for key in ("revision", "commit", "sha256")}
    return Source(directory, found, {"artifact": own, "recipe": recipe, "model": told})


def _demand_codes(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Demand that the files of codes are those of the list, or exports would pass on what a disk or a copy changed.

    Raises:
        CoolbitsError: naming the file that is missing, damaged or not of the list.
    """
    for name in (CODES, LAYOUT, REPLACED):
        path = directory / name
        found = known_digest(path) if path.is_file() else None
        if found != (files[name]["sha256"] if name in files else None):
            reason = "missing" if found is None else "not the bytes that were written"
            raise CoolbitsError(f"{path}: {reason}, so the model would be another one; quantize it again")
