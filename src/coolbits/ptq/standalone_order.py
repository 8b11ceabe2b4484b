"""What `coolbits quantize` is asked to do: recipe, model and options, all seen to before the work."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import is_text, json_kind
from coolbits.models.files import reading
from coolbits.models.hub import download_model
from coolbits.models.own_code import is_own_code
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.checkpoint import rounding_of
from coolbits.ptq.export.foresight import check_foreseen
from coolbits.ptq.export.model import check_modules, find_format
from coolbits.ptq.head import quantized_linears
from coolbits.ptq.passes import check_layers, check_reach
from coolbits.ptq.presets import quantizer_preset
from coolbits.ptq.standalone_calibration import HUB_ID, Wish
from coolbits.study.execution import Execution
from coolbits.study.load import load_quantizer
from coolbits.study.mistakes import sentence
from coolbits.study.recipes.ptq import Quantized

MAIN = "main"


@dataclass(frozen=True)
class Order:
    """What is to be done: `model` is a directory or a hub id, `recipe` a preset's name or a file, `export` a format.

    `head` quantizes the output head, too, and `save_model` also writes the dequantized model; the recipe may say either
    itself. Finished blocks are kept beside `out`, and written every `state_every_seconds`.
    """

    model: str
    recipe: str
    out: Path
    calibration: Wish = field(default_factory=Wish)
    revision: str = MAIN
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


def whole_recipe(order: Order) -> Quantized:
    """Return the recipe that is named, with what the order adds to it."""
    named = read_recipe(order.recipe)
    added = {"save_model": order.save_model or named.save_model, "head": order.head or named.head}
    raw = named.identity() | added
    try:
        return Quantized.read(raw)
    except ValidationError as error:
        raise CoolbitsError(f"--recipe {order.recipe}: {sentence(error, raw)}") from None


def find_model(order: Order) -> Path:
    """Return the directory of the model, downloaded if it is one of the hub.

    Raises:
        CoolbitsError: if there is no such directory, and the hub has no such model or cannot be reached; if a revision
            of a directory is asked for; if the model is quantized already; or if no record could say where it lies.
    """
    directory = _directory(order)
    if not is_text(place := directory.resolve()):
        raise CoolbitsError(f"--model {order.model}: lies in {place}, which is not valid UTF-8; rename that")
    if _read_json(directory / "config.json").get("quantization_config") is not None:
        raise CoolbitsError(f"--model {order.model}: quantized already, as its config.json says")
    return directory


def _directory(order: Order) -> Path:
    directory = Path(order.model)
    if order.model and directory.is_dir():
        if order.revision != MAIN:
            raise CoolbitsError(
                f"--revision {order.revision}: --model {order.model} is a folder here, which has no revisions; leave "
                "the option out, or call the command from where no folder has that name"
            )
        return directory
    if directory.is_file():
        raise CoolbitsError(f"--model {order.model}: a file; name the folder with config.json and model.safetensors")
    if not HUB_ID.fullmatch(order.model):
        raise CoolbitsError(f"--model {order.model}: no such folder, and no hub id (owner/name)")
    try:
        return download_model(order.model, order.revision, tokenizer=True, code=order.trust_remote_code)
    except CoolbitsError as error:
        raise CoolbitsError(f"--model {order.model}: no such folder; as a hub id, {error}") from None


def check(recipe: Quantized, model: PreTrainedModel, directory: Path, order: Order) -> None:
    """Refuse, before any work, what would fail after it.

    Raises:
        CoolbitsError: if decoder blocks hold weights that are in no linear layer, groups do not fit, the export cannot
            hold the result, or what is to be saved or exported is opened by code of its own, or has a tokenizer whose
            settings cannot be read.
    """
    check_reach(model, f"--model {order.model}")
    linears = quantized_linears(model, recipe.head, f"--model {order.model}")
    check_layers(linears, recipe.method)
    if (recipe.save_model or order.export) and is_own_code(model):
        option = "--save-model" if recipe.save_model else "--export"
        raise CoolbitsError(
            f"{option}: {order.model} is opened by Python code of its own, and only models of the library's classes "
            "are saved and exported; leave the option out, or --trust-remote-code if the library knows the model, too"
        )
    if recipe.save_model or order.export:
        _read_json(directory / "tokenizer_config.json")
    if order.export is not None:
        form = find_format(order.export)
        check_modules(linears, form, f"--model {order.model}", rounding_of(recipe) is not None)
        shapes = {name: weight_matrix(module).shape for name, module in linears.items()}
        check_foreseen(recipe, shapes, form)


def _read_json(path: Path) -> dict[str, Any]:
    """Return what a file holds, nothing if it is not there."""
    with reading(path):
        content = json.loads(path.read_bytes()) if path.is_file() else {}
    if not isinstance(content, dict):
        raise CoolbitsError(f"{path}: holds {json_kind(content)}; keys and values are expected")
    return content
