"""Reads a study file: YAML without its traps, defaults and grids resolved, errors in one sentence."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.presets import quantizer_preset
from coolbits.study.finetuning_choices import FinetuningChoice
from coolbits.study.grid import expand, merge
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.schema import NAME, Run, Study
from coolbits.study.vision_choices import VisionRun

_WHOLE = frozenset({"checkpoints", "cooldowns", "config", "paths"})
_GRIDDED = (
    *("Run", "CooldownChoice", "ScheduleChoice", "AdamW", "AdamC", "SGD", "Muon", "Divergence"),
    *("VisionRun", "EpochScheduleChoice", "Shift", "ResizedCrop"),
    *("FinetuningChoice", "FinetuningSchedule", "StartChoice"),
)
_MAX_BYTES = 1 << 20

_Choice = TypeVar("_Choice", bound=Recipe)


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 in which `1e-3` is a number, a key given twice is an error, and aliases are not expanded."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1}: aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the key {key!r} is given twice")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_study(path: Path) -> Study:
    """Read and check the study file at `path`; lists in runs become grids.

    Raises:
        CoolbitsError: for anything wrong in it, naming the file and the key.
    """
    raw = read_yaml(path)
    try:
        return parse_study(raw)
    except ValidationError as error:
        raise CoolbitsError(f"{path}: {_sentence(error)}") from None
    except CoolbitsError as error:
        raise CoolbitsError(f"{path}: {error}") from None


def load_quantizer(path: Path) -> Quantized:
    """Read and check a file of one quantizer, YAML or JSON: what stands below its name in a study file.

    Raises:
        CoolbitsError: for anything wrong in it, naming the file and the key.
    """
    raw = read_yaml(path)
    try:
        return Quantized.model_validate(_quantizer(raw))
    except ValidationError as error:
        raise CoolbitsError(f"{path}: {_sentence(error)}") from None


def parse_study(raw: dict[str, Any]) -> Study:
    """Check a study given as plain values, as YAML gives them."""
    defaults = _mapping(raw.get("defaults", {}), "defaults")
    for key in defaults:
        if key not in Run.model_fields:
            raise CoolbitsError(f"defaults.{key}: unknown key; allowed: {', '.join(Run.model_fields)}")
    runs = {}
    for name, run in _mapping(raw.get("runs", {}), "runs").items():
        if not isinstance(name, str) or not re.match(NAME, name):
            raise CoolbitsError(f"runs: {name!r} is no name; use lower-case letters, digits, '.', '_' and '-'")
        runs[name] = _expand_run(merge(defaults, _mapping(run, f"runs.{name}")), f"runs.{name}")
    vision = {
        name: _points(VisionRun, _mapping(run, f"vision.{name}"), f"vision.{name}")
        for name, run in _mapping(raw.get("vision", {}), "vision").items()
    }
    finetuning = {
        name: _points(FinetuningChoice, _mapping(choice, f"finetuning.{name}"), f"finetuning.{name}")
        for name, choice in _mapping(raw.get("finetuning", {}), "finetuning").items()
    }
    if not runs and not vision and not finetuning and not raw.get("pretrained") and not raw.get("analyses"):
        raise CoolbitsError("runs: missing; a study has runs, vision, finetuning, pretrained or analyses")
    if (runs or finetuning or raw.get("pretrained")) and "data" not in raw:
        raise CoolbitsError("data: missing; it is required for runs, for finetuning and for pretrained models")
    if (runs or finetuning) and "tokenizer" not in _mapping(raw["data"], "data"):
        raise CoolbitsError("data.tokenizer: missing; it is required for runs and for finetuning")
    quantizers = {
        name: _quantizer(choice) for name, choice in _mapping(raw.get("quantizers", {}), "quantizers").items()
    }
    sections = {"runs": runs, "vision": vision, "finetuning": finetuning, "quantizers": quantizers}
    return Study.model_validate(raw | sections)


def _expand_run(run: dict[str, Any], where: str) -> tuple[Run, ...]:
    if "cooldowns" in run:
        choices = run["cooldowns"] if isinstance(run["cooldowns"], list) else [run["cooldowns"]]
        run = run | {"cooldowns": [one for choice in choices for one in expand(_mapping(choice, where), _WHOLE)]}
    return _points(Run, run, where)


def _points(kind: type[_Choice], run: dict[str, Any], where: str) -> tuple[_Choice, ...]:
    """Return every point of the grid that `run` is."""
    points = [_with_preset(point) for point in expand(run, _WHOLE)]
    try:
        return tuple(kind.model_validate(point) for point in points)
    except ValidationError as error:
        raise CoolbitsError(f"{where}.{_sentence(error)}") from None


def _quantizer(choice: Any) -> Any:
    """A quantizer may be given by a preset's name alone, or by `preset` with other keys on top."""
    if isinstance(choice, str):
        return quantizer_preset(choice).identity()
    if isinstance(choice, dict) and isinstance(name := choice.get("preset"), str):
        own = {key: value for key, value in choice.items() if key != "preset"}
        return merge(quantizer_preset(name).identity(), own)
    return choice


def _with_preset(run: dict[str, Any]) -> dict[str, Any]:
    """A model and an optimizer may be given by name alone, an optimizer also by `preset` with other keys on top."""
    if isinstance(run.get("model"), str):
        run = run | {"model": {"preset": run["model"]}}
    optimizer = run.get("optimizer")
    if isinstance(optimizer, str):
        optimizer = {"preset": optimizer}
    if isinstance(optimizer, dict) and isinstance(name := optimizer.get("preset"), str):
        own = {key: value for key, value in optimizer.items() if key != "preset"}
        run = run | {"optimizer": merge(optimizer_preset(name), own)}
    return run


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values, safely and without YAML's traps.

    Raises:
        CoolbitsError: if it is missing, too large, not UTF-8 or not such YAML.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CoolbitsError(f"{path}: larger than 1 MiB; a study file is a few hundred lines of YAML")
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise CoolbitsError(f"{path}: no such study file") from None
    except IsADirectoryError:
        raise CoolbitsError(f"{path}: a folder, not a study file") from None
    except UnicodeDecodeError as error:
        raise CoolbitsError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise CoolbitsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    return _mapping(value, str(path))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CoolbitsError(f"{where}: expected keys and values, found {type(value).__name__} {str(value)[:40]!r}")
    return value


def _sentence(error: ValidationError) -> str:
    """Say the first thing wrong: where, what was found, what is allowed."""
    first = error.errors()[0]
    where = ".".join(_location(first))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{where}: missing; it is required"
    if first["type"] == "value_error" and "unknown key" in message:
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]}; found {first['input']!r:.80}"


def _location(first: ErrorDetails) -> Iterable[str]:
    return (str(part) for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-")))


def study_json_schema() -> dict[str, Any]:
    """Return the JSON schema of the study file: the model's, with grids allowed and run fields left to `defaults`."""
    schema = Study.model_json_schema()
    run, fields = schema["$defs"]["Run"], schema["properties"]
    image_run, finetuning = schema["$defs"]["VisionRun"], schema["$defs"]["FinetuningChoice"]
    run["properties"]["model"] = _or_name(run["properties"]["model"], "a preset: micro-neox, pythia-160m, ...")
    image_run["properties"]["model"] = _or_name(image_run["properties"]["model"], "a preset: resnet-micro, resnet-50")
    named = {"type": "object", "properties": {"preset": _or_list({"type": "string"})}, "required": ["preset"]}
    optimizer = {"anyOf": [run["properties"]["optimizer"], named]}
    for properties in (run["properties"], image_run["properties"], finetuning["properties"]):
        properties["optimizer"] = _or_name(optimizer, "a name: AdamW-32, AdamW-8D, Muon-8L, ...")
    for name in _GRIDDED:
        definition = schema["$defs"][name]
        gridded = {key: _or_list(value) for key, value in definition["properties"].items() if key not in _WHOLE}
        definition["properties"] |= gridded
    run.pop("required")
    run["properties"]["cooldowns"] = _or_list({"$ref": "#/$defs/CooldownChoice"})
    fields["runs"] = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Run"}}
    fields["vision"] = {"type": "object", "additionalProperties": {"$ref": "#/$defs/VisionRun"}}
    fields["finetuning"] = {"type": "object", "additionalProperties": {"$ref": "#/$defs/FinetuningChoice"}}
    fields["defaults"] = {"$ref": "#/$defs/Run", "description": "fields of every run; a run overrides any of them"}
    preset = {"type": "object", "properties": {"preset": {"type": "string"}}, "required": ["preset"]}
    quantizer = _or_name({"anyOf": [{"$ref": "#/$defs/Quantizer"}, preset]}, "a preset: gptq-paper-w4, rtn-w3-g64, ...")
    fields["quantizers"] = {"type": "object", "additionalProperties": quantizer}
    return schema


def _or_list(field: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [field, {"type": "array", "items": field, "minItems": 1}]}


def _or_name(field: dict[str, Any], description: str) -> dict[str, Any]:
    return {"anyOf": [field, {"type": "string", "description": description}]}
