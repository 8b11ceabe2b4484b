"""Quantize a model by itself, without a study: what `coolbits quantize` does."""

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import torch
from transformers import PreTrainedModel

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import creating
from coolbits.artifacts.hashing import digest_of, known_digest
from coolbits.loops.allocator import keep_little_freed_memory
from coolbits.loops.ownership import Owner
from coolbits.models.blocks import longest_sequence
from coolbits.models.devices import choose_device
from coolbits.models.files import load_model, stored_dtypes, weight_files
from coolbits.models.own_code import forget_own_code, is_own_code
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.checkpoint import DEQUANTIZED, Quantization, Request, quantize_model, write_results
from coolbits.ptq.export.model import Exported, export_model
from coolbits.ptq.head import quantized_linears
from coolbits.ptq.passes import Results
from coolbits.ptq.standalone_calibration import Calibrated, calibrate, check_heeded
from coolbits.ptq.standalone_order import Order, check, find_model, whole_recipe
from coolbits.ptq.standalone_record import Origin, write_record
from coolbits.ptq.target import check_target
from coolbits.ptq.tokens import TOKENS, write_tokens
from coolbits.ptq.unfinished import Place, circumstances
from coolbits.study.recipes.methods import CALIBRATED
from coolbits.study.recipes.ptq import Quantized


@dataclass(frozen=True)
class Outcome:
    """What was made: results by module, bytes of the model's files before and after, and the seconds it all took."""

    results: Results
    summary: dict[str, Any]
    calibration: Calibrated | None
    exported: Exported | None
    bytes_before: int
    bytes_after: int
    seconds: float


def quantize_standalone(order: Order) -> Outcome:
    """Quantize a model as `order` says into the new directory `order.out`, whole or not at all.

    It holds codes, layout, ledger, the calibration's tokens and `quantization.json`; if asked for, the dequantized
    model in `model/` and the exported one in a folder named after its format. The same order, given again after it was
    killed, goes on from the blocks that it finished.

    Raises:
        CoolbitsError: if anything asked for is missing or does not fit; then nothing is written.
    """
    clock = monotonic()
    check_target(order.out)
    recipe = whole_recipe(order)
    if order.device == "cuda" and not torch.cuda.is_available():
        raise CoolbitsError("--device cuda: there is no CUDA device here")
    check_heeded(order.calibration, recipe.method)
    directory = find_model(order)
    keep_little_freed_memory()
    loaded = load_model(directory, dtype=None, trust_remote_code=order.trust_remote_code)
    check(recipe, loaded, directory, order)
    calibration, made = _quantize(recipe, order, loaded, directory)
    replaced, own_code = _replaced_weights(recipe, loaded), is_own_code(loaded)
    del loaded
    with creating(order.out) as staging:
        summary = write_results(recipe, made, directory, staging)
        if recipe.save_model:
            forget_own_code(staging / DEQUANTIZED)
        origin = Origin(order.model, order.revision, directory, own_code)
        write_record(origin, recipe, calibration, summary, staging)
        exported = None
        if order.export is not None:
            exported = export_model(staging, order.export, staging / order.export)
    shutil.rmtree(order.unfinished, ignore_errors=True)
    before, stored = sum(path.stat().st_size for path in weight_files(directory)), stored_dtypes(directory)
    # Not by config.json, which may name another dtype, or none, as those of BLOOM do.
    after = before - max(stored, key=stored.__getitem__, default=torch.float32).itemsize * replaced + summary["bytes"]
    return Outcome(made.results, summary, calibration, exported, before, after, monotonic() - clock)


def _quantize(
    recipe: Quantized, order: Order, model: PreTrainedModel, directory: Path
) -> tuple[Calibrated | None, Quantization]:
    device = torch.device(choose_device(order.device))
    if not isinstance(recipe.method, CALIBRATED):
        (made,) = quantize_model([Request(recipe)], model, str(directory), device)
        return None, made
    calibration = calibrate(order.calibration, recipe.method.calibration, directory, longest_sequence(model))
    with TemporaryDirectory() as folder:
        write_tokens(calibration.tokens, Path(folder))

        @cache
        def owner() -> Owner:
            own_code = str(is_own_code(model))
            return _owner(recipe, directory, Path(folder) / TOKENS) | circumstances(device) | {"own_code": own_code}

        place = Place(order.unfinished, owner, order.state_every_seconds)
        (made,) = quantize_model([Request(recipe, Path(folder), place)], model, str(directory), device)
    return calibration, made


def _owner(recipe: Quantized, model: Path, tokens: Path) -> Owner:
    """Return whose finished blocks are: by digests of recipe and code, of all that a model is read from, of tokens."""
    files = [*weight_files(model), *model.glob("*.json"), *model.glob("*.py")]
    return {
        "recipe": digest_of(recipe.identity()),
        "code": code_slice(__name__).digest,
        "model": digest_of({str(path.relative_to(model)): known_digest(path) for path in files}),
        "calibration": known_digest(tokens),
    }


def _replaced_weights(recipe: Quantized, model: PreTrainedModel) -> int:
    """Return the number of weights in the model's files that codes replace; those of a tied head stay there."""
    shared = model.get_input_embeddings().weight
    linears = quantized_linears(model, recipe.head).values()
    return sum(weight_matrix(module).numel() for module in linears if module.weight is not shared)
