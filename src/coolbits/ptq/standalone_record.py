"""What a model quantized by itself says of where it came from: `quantization.json`."""

from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.manifest import describe_files
from coolbits.ptq.export.source import QUANTIZATION, weights_digests
from coolbits.ptq.standalone_calibration import Calibrated
from coolbits.ptq.tokens import TOKENS, write_tokens
from coolbits.study.recipes.ptq import Quantized

CALIBRATION = "calibration"


def write_record(
    given: str,
    revision: str,
    model: Path,
    recipe: Quantized,
    calibration: Calibrated | None,
    summary: dict[str, Any],
    out: Path,
) -> None:
    """Write the calibration's tokens and `quantization.json`, which says what came from what.

    `given` is the model as it was asked for, a directory or a hub id of that revision; `model` is where it lies.
    """
    shown = None
    if calibration is not None:
        (out / CALIBRATION).mkdir()
        write_tokens(calibration.tokens, out / CALIBRATION)
        shown = _shown(calibration, file_digest(out / CALIBRATION / TOKENS))
    made = {
        "format": 1,
        "model": {
            "given": given,
            "revision": None if Path(given).is_dir() else revision,
            "directory": str(model.resolve()),
            "sha256": weights_digests(model),
        },
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
        "sequences": sequences,
        "sequence_length": length,
        "tokens": calibration.tokens.count,
        "sha256": digest,
    }
