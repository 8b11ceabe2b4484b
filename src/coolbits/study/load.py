"""Reads a study file: defaults and grids resolved, errors in one sentence."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.presets import quantizer_preset
from coolbits.study.finetuning_choices import FinetuningChoice
from coolbits.study.grid import expand, merge
from coolbits.study.lengths import with_lengths
from coolbits.study.mistakes import sentence
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.reading import mapping, read_yaml, shown
from coolbits.study.recipes.base import Recipe
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.schema import MAX_NAME, NAME, CooldownChoice, Run, Study
from coolbits.study.vision_choices import VisionRun

_NAMED = ("runs", "pretrained", "vision", "averages", "finetuning", "quantizers", "evaluations", "analyses", "figures")
# Sections whose names are in rules of one kind: one job may measure all of a run, and another all of a fine-tuning.
_TOGETHER = (("runs", "finetuning"), *((section,) for section in _NAMED))
_WHOLE = frozenset({"checkpoints", "cooldowns", "config", "paths"})
_GRIDDED = (
    *("Run", "CooldownChoice", "ScheduleChoice", "AdamW", "AdamC", "SGD", "Muon", "Divergence"),
    *("VisionRun", "EpochScheduleChoice", "Shift", "ResizedCrop"),
    *("FinetuningChoice", "FinetuningSchedule", "StartChoice"),
)
_Choice = TypeVar("_Choice", bound=Recipe)
_Read = TypeVar("_Read")


def load_study(path: Path) -> Study:
    """Read and check the study file at `path`; lists in runs become grids.

    Raises:
        CoolbitsError: for anything wrong in it, naming the file and the key.
    """
    raw = read_yaml(path)
    try:
        return parse_study(raw)
    except ValidationError as error:
        raise CoolbitsError(f"{path}: {sentence(error, raw)}") from None
    except CoolbitsError as error:
        raise CoolbitsError(f"{path}: {error}") from None


def load_quantizer(path: Path) -> Quantized:
    """Read and check a file of one quantizer, YAML or JSON: what stands below its name in a study file.

    Raises:
        CoolbitsError: for anything wrong in it, naming the file and the key.
    """
    raw = read_yaml(path)
    try:
        raw = _quantizer(raw)
        return Quantized.model_validate(raw)
    except ValidationError as error:
        raise CoolbitsError(f"{path}: {sentence(error, raw)}") from None
    except CoolbitsError as error:
        raise CoolbitsError(f"{path}: {error}") from None


def parse_study(raw: dict[str, Any]) -> Study:
    """Check a study given as plain values, as YAML gives them; lengths that it leaves out are those of its runs."""
    _demand_known(raw)
    if "study" in raw:
        _demand_name(raw["study"], "study")
    for section in _NAMED:
        for name in mapping(raw.get(section, {}), section):
            _demand_name(name, section)
    for together in _TOGETHER:
        _demand_apart([(section, name) for section in together for name in raw.get(section, {})])
    defaults = mapping(raw.get("defaults", {}), "defaults")

    def each(section: str, read: Callable[[Any, str], _Read]) -> dict[str, _Read]:
        return {name: read(item, f"{section}.{name}") for name, item in raw.get(section, {}).items()}

    runs = each("runs", lambda run, where: _expand_run(merge(defaults, mapping(run, where)), where))
    vision = each("vision", lambda run, where: _points(VisionRun, mapping(run, where), where))
    finetuning = each("finetuning", lambda choice, where: _points(FinetuningChoice, mapping(choice, where), where))
    if not runs and not vision and not finetuning and not raw.get("pretrained") and not raw.get("analyses"):
        raise CoolbitsError("runs: missing; a study has runs, vision, finetuning, pretrained or analyses")
    if (runs or finetuning or raw.get("pretrained")) and "data" not in raw:
        raise CoolbitsError("data: missing; it is required for runs, for finetuning and for pretrained models")
    if (runs or finetuning) and mapping(raw["data"], "data").get("tokenizer") is None:
        raise CoolbitsError("data.tokenizer: missing; it is required for runs and for finetuning")
    sections = {"runs": runs, "vision": vision, "finetuning": finetuning, "quantizers": each("quantizers", _quantizer)}
    return with_lengths(Study.model_validate(raw | sections))


def _demand_known(raw: dict[str, Any]) -> None:
    """Refuse unknown sections, and unknown fields of `defaults`, before anything else that they make wrong."""
    for where, keys, known in (("", raw, Study), ("defaults: ", raw.get("defaults"), Run)):
        for key in keys if isinstance(keys, dict) else ():
            if key not in known.model_fields:
                raise CoolbitsError(f"{where}unknown key {key!r}; allowed: {', '.join(known.model_fields)}")


def _demand_name(name: Any, where: str) -> None:
    """Refuse what could not be a folder's name, or what a shell might read as something else."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
        raise CoolbitsError(
            f"{where}: {shown(name)} is no name; use at most {MAX_NAME} lower-case letters, digits, '.', '_' and '-', "
            "a letter or digit first"
        )


def _demand_apart(names: Iterable[tuple[str, str]]) -> None:
    """Refuse names, given as section and name, of which two would be one in the names of rules."""
    taken: dict[str, tuple[str, str]] = {}
    for section, name in names:
        where, other = taken.setdefault(rule_name(name), (section, name))
        if other != name:
            of = "" if where == section else f" of {where}"
            raise CoolbitsError(
                f"{section}: {name!r} and {other!r}{of} differ only in '.', '_' and '-', which names of Snakemake's "
                "rules do not tell apart; rename one of them"
            )


def rule_name(name: str) -> str:
    """Return a name in the letters that the name of one of Snakemake's rules may have."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _expand_run(run: dict[str, Any], where: str) -> tuple[Run, ...]:
    if "cooldowns" in run:
        run = run | {"cooldowns": list(_cooldowns(run["cooldowns"], f"{where}.cooldowns"))}
    return _points(Run, run, where)


def _cooldowns(given: Any, where: str) -> Iterator[dict[str, Any]]:
    """Yield every point of the grids that a run's cooldowns are; a mistake is named by its place in the file."""
    for number, choice in enumerate(given if isinstance(given, list) else [given]):
        place = f"{where}.{number}" if isinstance(given, list) else where
        for one in _grid(mapping(choice, place), place):
            try:
                CooldownChoice.model_validate(one)
            except ValidationError as error:
                raise CoolbitsError(sentence(error, one, place)) from None
            yield one


def _points(kind: type[_Choice], run: dict[str, Any], where: str) -> tuple[_Choice, ...]:
    """Return every point of the grid that `run` is."""
    points = []
    for point in _grid(run, where):
        try:
            point = _with_preset(point)
            points.append(kind.model_validate(point))
        except ValidationError as error:
            raise CoolbitsError(sentence(error, point, where)) from None
        except CoolbitsError as error:
            raise CoolbitsError(f"{where}.{error}") from None
    return tuple(points)


def _grid(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    try:
        return expand(value, _WHOLE)
    except CoolbitsError as error:
        raise CoolbitsError(f"{where}{error}") from None


def _quantizer(choice: Any, where: str = "") -> Any:
    """A quantizer may be given by a preset's name alone, or by `preset` with other keys on top."""
    try:
        if isinstance(choice, str):
            return _preset(choice)
        if isinstance(choice, dict) and isinstance(name := choice.get("preset"), str):
            own = {key: value for key, value in choice.items() if key != "preset"}
            return merge(_preset(name), own)
    except CoolbitsError as error:
        raise CoolbitsError(f"{where}: {str(error).removeprefix('quantizer ')}" if where else str(error)) from None
    return choice


def _preset(name: str) -> dict[str, Any]:
    """Return a preset's quantizer as plain values, without the length of its calibration if it says none itself."""
    quantizer = quantizer_preset(name)
    values = quantizer.identity()
    calibration = getattr(quantizer.method, "calibration", None)
    if calibration is not None and "sequence_length" not in calibration.model_fields_set:
        del values["method"]["calibration"]["sequence_length"]
    return values


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
