"""What a model quantized by itself says of where it came from: `quantization.json`."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.manifest import describe_files
from coolbits.models.hub import commit_of
from coolbits.ptq.export.source import QUANTIZATION, weights_digests
from coolbits.ptq.origins import write_documents
from coolbits.ptq.standalone_calibration import Calibrated
from coolbits.ptq.tokens import TOKENS, write_tokens
from coolbits.study.recipes.ptq import Quantized

CALIBRATION = "calibration"


@dataclass(frozen=True)
class Origin:
    """The model that was quantized: as it was asked for, a directory or a hub id of `revision`, and where it lies.

    `own_code`: it was opened by Python code that came with it.
    """

    given: str
    revision: str
    directory: Path
    own_code: bool

    def shown(self) -> dict[str, Any]:
        """Return what `quantization.json` says of it; of the hub, with the commit that was read, null if unknown."""
        local = Path(self.given).is_dir()
        return {
            "given": self.given,
            "revision": None if local else self.revision,
            "commit": None if local else commit_of(self.directory),
            "directory": str(self.directory.resolve()),
            "own_code": self.own_code,
            "sha256": weights_digests(self.directory),
        }


def write_record(
    model: Origin, recipe: Quantized, calibration: Calibrated | None, summary: dict[str, Any], out: Path
) -> None:
    """Write the calibration's tokens, what they came from, and `quantization.json`, which says what came from what."""
    shown = None
    if calibration is not None:
        (out / CALIBRATION).mkdir()
        write_tokens(calibration.tokens, out / CALIBRATION)
        if calibration.documents is not None:
            write_documents(calibration.documents, out / CALIBRATION)
        shown = _shown(calibration, file_digest(out / CALIBRATION / TOKENS))
    made = {
        "format": 1,
        "model": model.shown(),
        "recipe": _as_it_ran(recipe, calibration),
        "calibration": shown,
        "summary": summary,
        "files": describe_files(out),
        "versions": {
            "python": python_version(),
            **{name: version(name) for name in ("coolbits", "torch", "transformers", "tokenizers", "safetensors")},
        },
    }
    write_json(out / QUANTIZATION, made)


def _as_it_ran(recipe: Quantized, calibration: Calibrated | None) -> dict[str, Any]:
    """Return the recipe's identity with the calibration that happened in place of the method's own, which did not."""
    identity = recipe.identity()
    if calibration is not None:
        del identity["method"]["calibration"]
        if calibration.recipe is not None:
            identity["method"]["calibration"] = calibration.recipe.identity()
    return identity


def _shown(calibration: Calibrated, digest: str) -> dict[str, Any]:
    """Return what `quantization.json` says of the tokens, in a file of this digest, that were shown to the model."""
    sequences, length = calibration.tokens.tokens.shape
    return {
        "source": calibration.source,
        "text_sha256": calibration.text_sha256,
        **calibration.origin,
        "sequences": sequences,
        "sequence_length": length,
        "tokens": calibration.tokens.count,
        "sha256": digest,
    }
