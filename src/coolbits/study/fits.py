"""What can be told before any job: whether measures can be made at all, and fit the models that they are for."""

from collections.abc import Iterator

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import canonical_json
from coolbits.evaluation.task_names import BUILT, PACKAGED, TASK_SETS, expand_tasks, needs_hub, unknown_tasks
from coolbits.models.shapes import Shape, shape_of
from coolbits.study.measurements import chosen_quantizers
from coolbits.study.recipes.comparison import why_incomparable, why_no_curvature
from coolbits.study.recipes.evaluation import Comparison, Curvature, Measure, Tasks
from coolbits.study.recipes.methods import CALIBRATED, OnGrid
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.recipes.training import Model
from coolbits.study.schema import Study
from coolbits.study.track import Track


def check_fits(study: Study, quantizers: dict[str, Quantized], tracks: list[Track]) -> None:
    """Refuse what each job would refuse only after the training.

    Raises:
        CoolbitsError: if there is no such task, or none that is asked with so many shots, more eigenvalues are wanted
            than Lanczos vectors, a group of weights does not divide a layer's inputs, a sequence is longer than the
            positions that a model has learned, a model is compared with one whose head is untied, or that differs by
            more than its weights say, or curvature is wanted of one that rounds its inputs; naming the key.
    """
    for name, choice in study.evaluations.items():
        _check_measure(choice.measure, f"evaluations.{name}.measure")
    _check_all_quantized(study, quantizers)
    for run, model in _models(tracks):
        shape = shape_of(model)
        for name, choice in study.evaluations.items():
            if choice.runs == "all" or run in choice.runs:
                length = getattr(choice.measure, "sequence_length", 0)
                check_length(model, shape, length, f"evaluations.{name}.measure.sequence_length", run)
                for key, quantizer in chosen_quantizers(quantizers, choice).items():
                    _check_quantizer(quantizer, model, shape, f"quantizers.{key}", run)
                    _check_quantized(name, choice.measure, key, quantizer, f" of run {run!r}", shape.tied)


def _check_measure(measure: Measure, where: str) -> None:
    """Refuse a measure that no model has."""
    match measure:
        case Tasks():
            if unknown := unknown_tasks(measure.tasks):
                raise CoolbitsError(
                    f"{where}.tasks: no task or set {unknown[0]!r}; there are the sets {', '.join(TASK_SETS)}, "
                    f"the tasks {', '.join((*BUILT, *PACKAGED))}, and those that `lm-eval ls tasks` lists"
                )
            local = [name for name in expand_tasks(measure.tasks) if not needs_hub(name)]
            if local and measure.shots:
                raise CoolbitsError(
                    f"{where}.shots: {measure.shots}, but {', '.join(local)} can only be asked at 0; take 0, or other "
                    "tasks"
                )
        case Curvature() if measure.eigenvalues > measure.iterations:
            raise CoolbitsError(
                f"{where}.eigenvalues: {measure.eigenvalues}, but {measure.iterations} `iterations` give at most as "
                "many; lower the one or raise the other"
            )


def _check_all_quantized(study: Study, quantizers: dict[str, Quantized]) -> None:
    """Refuse what measures tell nothing of, whatever the models: see `_check_quantized`."""
    for name, choice in study.evaluations.items():
        for key, quantizer in chosen_quantizers(quantizers, choice).items():
            _check_quantized(name, choice.measure, key, quantizer)


def _check_quantized(
    name: str, measure: Measure, key: str, quantizer: Quantized, of_run: str = "", tied: bool = False
) -> None:
    """Refuse, in the evaluation `name`, weights that do not tell how functions differ, and the curvature of steps."""
    subject, reason = f"quantizers.{key}{of_run}", None
    if isinstance(measure, Comparison):
        reason = why_incomparable(measure.kind, subject, quantizer, quantizer.head and tied)
    if isinstance(measure, Curvature):
        reason = why_no_curvature(subject, quantizer)
    if reason:
        raise CoolbitsError(f"evaluations.{name}.measure: {reason}; name others in evaluations.{name}.quantizers")


def _models(tracks: list[Track]) -> Iterator[tuple[str, Model]]:
    """Yield each model that is trained once, and the name of a run that trains it."""
    models = {(track.columns["run"], canonical_json(track.recipe.model.identity())): track for track in tracks}
    yield from ((run, track.recipe.model) for (run, _), track in models.items())


def _check_quantizer(quantizer: Quantized, model: Model, shape: Shape, where: str, run: str) -> None:
    method = quantizer.method
    if isinstance(method, OnGrid) and method.group_size is not None:
        for inputs in sorted({shape.width, shape.heads * shape.head_width, shape.inner_width}):
            if inputs % method.group_size:
                raise CoolbitsError(
                    f"{where}.method.grid.group_size: {method.group_size} does not divide the {inputs} inputs of a "
                    f"layer of run {run!r}; take a divisor, or null for one scale a row"
                )
    if isinstance(method, CALIBRATED):
        length = method.calibration.sequence_length
        check_length(model, shape, length, f"{where}.method.calibration.sequence_length", run)


def check_length(model: Model, shape: Shape, length: int, where: str, run: str) -> None:
    """Refuse positions for which a model has no embedding; rotations go on for ever."""
    if model.architecture == "gpt2" and length > shape.positions:
        raise CoolbitsError(f"{where}: {length} tokens, but the model of run {run!r} has {shape.positions} positions")
