"""From checkpoints, averages and fine-tuned models to quantized models and evaluations."""

from dataclasses import dataclass
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.study.recipes.evaluation import Evaluation, Measure, Tasks
from coolbits.study.recipes.ptq import GPTQ, Quantized
from coolbits.study.schema import EvaluationChoice, Quantizer, Study
from coolbits.study.sources import DataNodes
from coolbits.study.track import Track

FULL = "none"


@dataclass(frozen=True)
class Point:
    """A model to measure: checkpoint, average or fine-tuned, the columns that describe it and the family it is of."""

    node: Node
    columns: dict[str, Any]
    family: str

    @classmethod
    def of_track(cls, track: Track, step: int) -> "Point":
        """Return the checkpoint of a trajectory at `step` as a point."""
        return cls(track.checkpoint(step), track.row(step), track.family)


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


def measure(study: Study, points: list[Point], data: DataNodes) -> Measured:
    """Pair every wanted point with every wanted quantizer and measure.

    Raises:
        CoolbitsError: if an evaluation names a run, an average or a quantizer that the study has not.
    """
    rows: list[Measurement] = []
    families: list[tuple[Node, str]] = []
    for name, choice in study.evaluations.items():
        _check_names(study, name, choice)
        for point in points:
            if _wanted(study, choice, point):
                base = _evaluation(choice.measure, point.node, None, data)
                rows.append(Measurement(name, choice.measure, base, None, None, full_precision(point)))
                families.append((base, point.family))
                for key, quantizer in _chosen(study, choice).items():
                    quantized = _quantized(quantizer, point.node, data)
                    evaluation = _evaluation(choice.measure, point.node, quantized, data)
                    columns = point.columns | _quantizer_columns(quantizer, key)
                    rows.append(Measurement(name, choice.measure, evaluation, base, quantized, columns))
                    families.extend([(quantized, point.family), (evaluation, point.family)])
    return Measured(rows, [node for node, _ in families], families)


def _check_names(study: Study, name: str, choice: EvaluationChoice) -> None:
    known: dict[str, list[str]] = {
        "quantizers": list(study.quantizers),
        "runs": [*study.runs, *study.finetuning],
        "averages": list(study.averages),
    }
    for key, allowed in known.items():
        wanted = getattr(choice, key)
        for item in () if wanted == "all" else wanted:
            if item not in allowed:
                raise CoolbitsError(f"evaluations.{name}.{key}: no {item!r}; there are {', '.join(allowed) or 'none'}")


def _wanted(study: Study, choice: EvaluationChoice, point: Point) -> bool:
    if choice.of == "final" and not point.columns["final"]:
        return False
    names = choice.averages if point.columns["source"] == "average" else choice.runs
    return names == "all" or point.columns["run"] in names


def _chosen(study: Study, choice: EvaluationChoice) -> dict[str, Quantizer]:
    names = study.quantizers if choice.quantizers == "all" else choice.quantizers
    return {name: study.quantizers[name] for name in names}


def _quantizer_columns(quantizer: Quantizer | None, name: str = FULL) -> dict[str, Any]:
    if quantizer is None:
        return {"quantizer": name, "method": FULL, "bits": None, "group_size": None}
    grid = quantizer.method.grid
    return {"quantizer": name, "method": quantizer.method.kind, "bits": grid.bits, "group_size": grid.group_size}


def full_precision(point: Point) -> dict[str, Any]:
    """Return the columns of a point as it is, not quantized."""
    return point.columns | _quantizer_columns(None)


def _model_label(model: Node) -> str:
    return model.name.replace("/", "-") if model.kind == "checkpoint" else model.name


def _quantized(quantizer: Quantizer, model: Node, data: DataNodes) -> Node:
    grid = quantizer.method.grid
    group = f"g{grid.group_size}" if grid.group_size else "row"
    label = f"{quantizer.method.kind}-w{grid.bits}-{group}-{_model_label(model)}"
    parents = {"model": model.ref}
    if isinstance(quantizer.method, GPTQ):
        parents["shards"] = data.parents["shards"]
    recipe = Quantized(method=quantizer.method, save_model=quantizer.save_model).identity()
    return make_node("quantized", label, recipe, parents)


def _evaluation(measure: Measure, model: Node, quantized: Node | None, data: DataNodes) -> Node:
    parents: dict[str, Ref] = {"model": model.ref}
    if isinstance(measure, Tasks):
        parents |= {"tokenizer": data.parents["tokenizer"], "corpus": data.corpus}
    else:
        parents["shards"] = data.parents["shards"]
    if quantized is not None:
        parents["quantized"] = quantized.ref
    subject = quantized.name.rpartition("-")[0] if quantized else _model_label(model)
    return make_node("evaluation", f"{measure.kind}-{subject}", Evaluation(measure=measure).identity(), parents)
