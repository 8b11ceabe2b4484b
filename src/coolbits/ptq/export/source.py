"""What is exported: a quantized artifact, or what `coolbits quantize` wrote, and the model that it was made from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import places
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.manifest import MANIFEST, read_manifest

QUANTIZATION = "quantization.json"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Source:
    """A directory with codes, the model's directory, and what the exported model says of its origin."""

    directory: Path
    model: Path
    provenance: dict[str, Any]


def find_source(directory: Path, model: Path | None) -> Source:
    """Return the source in `directory`; `model` stands in for the model that it names, which must be the same.

    Raises:
        CoolbitsError: if it is no quantized model or holds no weights, or the model is missing, is another one, or was
            opened by code of its own.
    """
    if (directory / QUANTIZATION).is_file():
        return _standalone(directory, model)
    if not directory.is_dir():
        raise CoolbitsError(f"{directory}: no such folder; name a quantized artifact, as in results/quantized/*")
    return _artifact(directory, model)


def weight_files(model: Path) -> list[Path]:
    """Return the files of weights in a model's directory: one, or those that its index names."""
    index = model / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return [model / _WEIGHTS]
    return [model / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def weights_digests(model: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights in a model's directory, by name."""
    return {path.name: file_digest(path) for path in weight_files(model) if path.is_file()}


def _artifact(directory: Path, model: Path | None) -> Source:
    manifest = read_manifest(directory)
    if manifest.kind != "quantized":
        raise CoolbitsError(f"{directory}: an artifact of kind {manifest.kind!r}; only quantized models are exported")
    if manifest.diverged:
        raise CoolbitsError(f"{directory}: made from a training run that diverged, so there are no weights to export")
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
    made: dict[str, Any] = json.loads((directory / QUANTIZATION).read_text())
    found = model or Path(made["model"]["directory"])
    if not found.is_dir():
        raise CoolbitsError(f"{found}: no such folder; say with --model where the model is that was quantized")
    if weights_digests(found) != made["model"]["sha256"]:
        raise CoolbitsError(f"{found}: other weights than those that {directory} was made from")
    own = {"quantization": file_digest(directory / QUANTIZATION)}
    if made["model"].get("own_code"):
        raise CoolbitsError(
            f"{directory}: quantized with --trust-remote-code, by code of the model's own; only models of the "
            "library's classes are exported"
        )
    # Records of older versions have no commit.
    origin = {key: made["model"].get(key) for key in ("revision", "commit", "sha256")}
    return Source(directory, found, {"artifact": own, "recipe": made["recipe"], "model": origin})
