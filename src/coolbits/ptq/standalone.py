"""Quantize a model by itself, without a study: what `coolbits quantize` does."""

import json
import shutil
from dataclasses import dataclass, field
from functools import cache
from os.path import lexists
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import torch
from pydantic import ValidationError
from transformers import PreTrainedModel

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import creating
from coolbits.artifacts.hashing import digest_of, known_digest
from coolbits.loops.allocator import keep_little_freed_memory
from coolbits.loops.ownership import Owner
from coolbits.models.devices import choose_device
from coolbits.models.files import load_model, reading
from coolbits.models.hub import download_model
from coolbits.models.own_code import forget_own_code, is_own_code
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.checkpoint import DEQUANTIZED, Quantization, Request, quantize_model, write_results
from coolbits.ptq.export.foresight import check_foreseen
from coolbits.ptq.export.model import Exported, check_modules, export_model, find_format
from coolbits.ptq.export.source import weight_files
from coolbits.ptq.head import quantized_linears
from coolbits.ptq.passes import Results, check_layers, check_reach
from coolbits.ptq.presets import quantizer_preset
from coolbits.ptq.standalone_calibration import HUB_ID, Calibrated, Wish, calibrate, check_heeded
from coolbits.ptq.standalone_record import Origin, write_record
from coolbits.ptq.tokens import TOKENS, write_tokens
from coolbits.ptq.unfinished import Place, circumstances
from coolbits.study.execution import Execution
from coolbits.study.load import load_quantizer
from coolbits.study.mistakes import sentence
from coolbits.study.recipes.ptq import CALIBRATED, Quantized

_BYTES = {"float64": 8, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Order:
    """What is to be done: `model` is a directory or a hub id, `recipe` a preset's name or a file, `export` a format.

    `head` quantizes the output head, too, as the recipe may say itself. Finished blocks are kept beside `out`, and
    written every `state_every_seconds`.
    """

    model: str
    recipe: str
    out: Path
    calibration: Wish = field(default_factory=Wish)
    revision: str = "main"
    device: str = "auto"
    head: bool = False
    save_model: bool = False
    export: str | None = None
    trust_remote_code: bool = False
    state_every_seconds: float = Execution().state_every_seconds

    @property
    def unfinished(self) -> Path:
        """The folder in which finished blocks lie until `out` is there."""
        return self.out.with_name(f".{self.out.name}.unfinished")


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
    if lexists(order.out):
        raise CoolbitsError(f"{order.out}: exists already; choose another --out")
    recipe = _whole_recipe(order)
    if order.device == "cuda" and not torch.cuda.is_available():
        raise CoolbitsError("--device cuda: there is no CUDA device here")
    check_heeded(order.calibration, recipe.method)
    directory = find_model(order)
    if "quantization_config" in _config(directory):
        raise CoolbitsError(f"--model {order.model}: quantized already, as its config.json says")
    keep_little_freed_memory()
    loaded = load_model(directory, dtype=None, trust_remote_code=order.trust_remote_code)
    check(recipe, loaded, order)
    calibration, made = _quantize(recipe, order, loaded, directory)
    replaced, own_code = _replaced_weights(recipe, loaded), is_own_code(loaded)
    del loaded
    with creating(order.out) as staging:
        summary = write_results(recipe, made, directory, staging)
        if order.save_model:
            forget_own_code(staging / DEQUANTIZED)
        origin = Origin(order.model, order.revision, directory, own_code)
        write_record(origin, recipe, calibration, summary, staging)
        exported = None
        if order.export is not None:
            exported = export_model(staging, order.export, staging / order.export)
    shutil.rmtree(order.unfinished, ignore_errors=True)
    before = sum(path.stat().st_size for path in weight_files(directory))
    after = before - _stored_bytes(directory) * replaced + summary["bytes"]
    return Outcome(made.results, summary, calibration, exported, before, after, monotonic() - clock)


def read_recipe(given: str) -> Quantized:
    """Return the recipe that a preset's name or a file (.yaml, .yml, .json) stands for.

    Raises:
        CoolbitsError: if there is no such preset or file, or the file holds no recipe.
    """
    path = Path(given)
    if path.suffix not in (".yaml", ".yml", ".json"):
        return quantizer_preset(given)
    if not path.is_file():
        raise CoolbitsError(f"--recipe {given}: no such file")
    return load_quantizer(path)


def _whole_recipe(order: Order) -> Quantized:
    """Return the recipe that is named, with what the order adds to it."""
    named = read_recipe(order.recipe)
    raw = named.identity() | {"save_model": order.save_model, "head": order.head or named.head}
    try:
        return Quantized.read(raw)
    except ValidationError as error:
        raise CoolbitsError(f"--recipe {order.recipe}: {sentence(error, raw)}") from None


def find_model(order: Order) -> Path:
    """Return the directory of the model, downloaded if it is one of the hub.

    Raises:
        CoolbitsError: if there is no such directory, and the hub has no such model or cannot be reached.
    """
    directory = Path(order.model)
    if directory.is_dir():
        return directory
    if not HUB_ID.fullmatch(order.model):
        raise CoolbitsError(f"--model {order.model}: no such folder, and no hub id (owner/name)")
    try:
        return download_model(order.model, order.revision, tokenizer=True, code=order.trust_remote_code)
    except CoolbitsError as error:
        raise CoolbitsError(f"--model {order.model}: no such folder; as a hub id, {error}") from None


def check(recipe: Quantized, model: PreTrainedModel, order: Order) -> None:
    """Refuse, before any work, what would fail after it.

    Raises:
        CoolbitsError: if decoder blocks hold weights that are in no linear layer, groups do not fit, the export cannot
            hold the result, or what is to be saved or exported is opened by code of its own.
    """
    check_reach(model, f"--model {order.model}")
    linears = quantized_linears(model, recipe.head, f"--model {order.model}")
    check_layers(linears, recipe.method)
    if (order.save_model or order.export) and is_own_code(model):
        option = "--save-model" if order.save_model else "--export"
        raise CoolbitsError(
            f"{option}: {order.model} is opened by Python code of its own, and only models of the library's classes "
            "are saved and exported; leave the option out, or --trust-remote-code if the library knows the model, too"
        )
    if order.export is not None:
        form = find_format(order.export)
        check_modules(linears, form, f"--model {order.model}")
        shapes = {name: weight_matrix(module).shape for name, module in linears.items()}
        check_foreseen(recipe, shapes, form)


def _quantize(
    recipe: Quantized, order: Order, model: PreTrainedModel, directory: Path
) -> tuple[Calibrated | None, Quantization]:
    device = torch.device(choose_device(order.device))
    if not isinstance(recipe.method, CALIBRATED):
        (made,) = quantize_model([Request(recipe)], model, str(directory), device)
        return None, made
    positions = getattr(model.config, "max_position_embeddings", None)
    calibration = calibrate(order.calibration, recipe.method.calibration, directory, positions)
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


def _stored_bytes(model: Path) -> int:
    """Return the bytes of a weight in the model's files, as its config says."""
    config = _config(model)
    return _BYTES.get(str(config.get("dtype", config.get("torch_dtype"))), 4)


def _config(model: Path) -> dict[str, Any]:
    path = model / "config.json"
    with reading(path):
        config: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return config
