"""From checkpoints, averages, fine-tuned and pretrained models to quantized models and evaluations."""

from dataclasses import dataclass
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.study.recipes.calibration import Calibration, CalibrationSet
from coolbits.study.recipes.evaluation import Comparison, Curvature, Evaluation, Landscape, Measure, Tasks
from coolbits.study.recipes.methods import CALIBRATED
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.schema import EvaluationChoice, Study
from coolbits.study.sources import DataNodes
from coolbits.study.track import Track

FULL = "none"


@dataclass(frozen=True)
class Point:
    """A model to measure, the columns that describe it and the family it is of.

    `previous` is the checkpoint before it in its run, if there is one; `data` what a pretrained model reads, in tokens
    of its own, and None where that is the study's.
    """

    node: Node
    columns: dict[str, Any]
    family: str
    previous: Ref | None = None
    data: DataNodes | None = None

    @classmethod
    def of_track(cls, track: Track, step: int) -> "Point":
        """Return the checkpoint of a trajectory at `step` as a point."""
        return cls(track.checkpoint(step), track.row(step), track.family, track.previous(step))


@dataclass(frozen=True)
class Measurement:
    """One row of a table to be: an evaluation, that of the full-precision model beside it, and the columns."""

    name: str
    measure: Measure
    evaluation: Node
    base: Node | None
    quantized: Node | None
    columns: dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """All measurements of a study, the nodes they need, and the family of each node."""

    rows: list[Measurement]
    nodes: list[Node]
    families: list[tuple[Node, str]]


def measure(study: Study, quantizers: dict[str, Quantized], points: list[Point], data: DataNodes) -> Measured:
    """Pair every wanted point with every wanted quantizer and measure.

    Raises:
        CoolbitsError: if an evaluation names a run, an average or a quantizer that the study has not.
    """
    rows: list[Measurement] = []
    families: list[tuple[Node, str]] = []
    calibrations: list[Node] = []
    seeds = {point.columns["seed"] for point in points} - {None}
    for name, choice in study.evaluations.items():
        _check_names(study, name, choice, seeds)
        for point in points:
            if _wanted(study, choice, point):
                base, read = None, point.data or data
                if not isinstance(choice.measure, Comparison):
                    base = _evaluation(choice.measure, point, None, read)
                    rows.append(Measurement(name, choice.measure, base, None, None, full_precision(point)))
                    families.append((base, point.family))
                for key, quantizer in chosen_quantizers(quantizers, choice).items():
                    calibration = _calibration(quantizer, read)
                    calibrations += [calibration] if calibration else []
                    quantized = _quantized(quantizer, point.node, calibration)
                    evaluation = _evaluation(choice.measure, point, quantized, read)
                    columns = point.columns | _quantizer_columns(quantizer, key)
                    rows.append(Measurement(name, choice.measure, evaluation, base, quantized, columns))
                    families.extend([(quantized, point.family), (evaluation, point.family)])
    return Measured(rows, [*calibrations, *(node for node, _ in families)], families)


def unmeasured(study: Study, rows: list[Measurement]) -> dict[str, list[str]]:
    """Name by section what no evaluation measures, of which nothing else would tell, and what measures no model.

    Quantizers that are not measured are not made. Runs and fine-tunings have tables of their own besides.
    """
    seen = {
        "quantizers": {row.columns["quantizer"] for row in rows},
        "averages": {row.columns["run"] for row in rows if row.columns["source"] == "average"},
        "pretrained": {row.columns["run"] for row in rows if row.columns["source"] == "pretrained"},
        "evaluations": {row.name for row in rows},
    }
    missed = {section: [name for name in getattr(study, section) if name not in seen[section]] for section in seen}
    return {section: names for section, names in missed.items() if names}


def _check_names(study: Study, name: str, choice: EvaluationChoice, seeds: set[int]) -> None:
    known: dict[str, list[Any]] = {
        "quantizers": list(study.quantizers),
        "runs": [*study.runs, *study.finetuning, *study.pretrained],
        "averages": list(study.averages),
        "seeds": sorted(seeds),
    }
    for key, allowed in known.items():
        wanted = getattr(choice, key)
        for item in () if wanted in ("all", None) else wanted:
            if item not in allowed:
                there = ", ".join(map(str, allowed)) or "none"
                raise CoolbitsError(f"evaluations.{name}.{key}: no {item!r}; there are {there}")


def _wanted(study: Study, choice: EvaluationChoice, point: Point) -> bool:
    columns = point.columns
    if not columns["final"] and (choice.of == "final" or not _on_stride(choice.stride, columns)):
        return False
    if isinstance(choice.measure, Landscape) and point.previous is None:
        return False
    names = choice.averages if columns["source"] == "average" else choice.runs
    return (names == "all" or columns["run"] in names) and (choice.seeds == "all" or columns["seed"] in choice.seeds)


def _on_stride(stride: int | None, columns: dict[str, Any]) -> bool:
    """Whether a model's step is a multiple of the stride, in whole steps as checkpoints are kept."""
    return stride is None or columns["step"] % max(1, round(stride * columns["step"] / columns["tokens"])) == 0


def chosen_quantizers(quantizers: dict[str, Quantized], choice: EvaluationChoice) -> dict[str, Quantized]:
    """Return the quantizers, by name, whose models an evaluation measures."""
    names = choice.quantizers
    if names is None:
        names = () if isinstance(choice.measure, Curvature) else "all"
    return {name: quantizers[name] for name in (quantizers if names == "all" else names)}


def _quantizer_columns(quantizer: Quantized | None, name: str = FULL) -> dict[str, Any]:
    if quantizer is None:
        return {"quantizer": name, "method": FULL, "bits": None, "group_size": None}
    method = quantizer.method
    return {"quantizer": name, "method": method.kind, "bits": method.bits, "group_size": method.group_size}


def full_precision(point: Point) -> dict[str, Any]:
    """Return the columns of a point as it is, not quantized."""
    return point.columns | _quantizer_columns(None)


def _model_label(model: Node) -> str:
    return model.name.replace("/", "-") if model.kind == "checkpoint" else model.name


def _quantized(quantizer: Quantized, model: Node, calibration: Node | None) -> Node:
    method = quantizer.method
    group = f"g{method.group_size}" if method.group_size else "row"
    label = f"{method.kind}-w{method.bits}-{group}-{_model_label(model)}"
    parents = {"model": model.ref} | ({"calibration": calibration.ref} if calibration else {})
    return make_node("quantized", label, quantizer.identity(), parents)


def _calibration(quantizer: Quantized, data: DataNodes) -> Node | None:
    """Return the tokens that a quantizer shows to the model, if it does."""
    if not isinstance(quantizer.method, CALIBRATED):
        return None
    calibration: Calibration = quantizer.method.calibration
    label = f"{calibration.kind}-{calibration.sequences}x{calibration.sequence_length}"
    role = "shards" if calibration.kind == "windows" else "tokenizer"
    return make_node(
        "calibration", label, CalibrationSet(calibration=calibration).identity(), {role: data.parents[role]}
    )


def _evaluation(measure: Measure, point: Point, quantized: Node | None, data: DataNodes) -> Node:
    parents: dict[str, Ref] = {"model": point.node.ref}
    if isinstance(measure, Tasks):
        parents |= {"tokenizer": data.parents["tokenizer"], "corpus": data.corpus}
    else:
        parents["shards"] = data.parents["shards"]
    if quantized is not None:
        parents["quantized"] = quantized.ref
    if isinstance(measure, Landscape) and point.previous is not None:
        parents["previous"] = point.previous
    subject = quantized.name.rpartition("-")[0] if quantized else _model_label(point.node)
    return make_node("evaluation", f"{measure.kind}-{subject}", Evaluation(measure=measure).identity(), parents)
