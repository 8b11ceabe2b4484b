"""From the study's `finetuning` to nodes: conversations, and a fine-tuned model for each start and point of a grid."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.models.shapes import shape_of
from coolbits.optim.schedules import learning_rate
from coolbits.study.data_choices import SUFFIXES, HubTokenizer
from coolbits.study.finetuning_choices import (
    BuiltQuestionsChoice,
    FileConversationsChoice,
    FinetuningChoice,
    HubStart,
)
from coolbits.study.fits import check_length
from coolbits.study.measurements import Point
from coolbits.study.optimizer_names import optimizer_name, states_label
from coolbits.study.recipes import finetuning as recipes
from coolbits.study.recipes.training import Constant, Cosine, Linear, Schedule
from coolbits.study.schema import Study
from coolbits.study.sources import DataNodes, slug
from coolbits.study.track import Track
from coolbits.study.units import si


@dataclass(frozen=True)
class Finetunings:
    """The fine-tuned models as points to measure, the conversations they are trained on, and where files lie.

    `scale` is what the fine-tunings are, for captions.
    """

    points: list[Point]
    conversations: list[Node]
    locations: dict[str, list[str]]
    scale: str = ""


@dataclass(frozen=True)
class _Start:
    """A model to fine-tune: what it adds to a recipe and to the parents, and the columns that describe it."""

    label: str
    family: str
    hub: recipes.HubModel | None
    parents: dict[str, Ref]
    columns: dict[str, Any]


def finetunings(study: Study, tracks: list[Track], data: DataNodes, folder: Path) -> Finetunings:
    """Resolve every fine-tuning of the study; relative paths start at `folder`.

    Raises:
        CoolbitsError: if a start does not exist, a file is missing, or the tokenizer is not that of a model of the hub.
    """
    made = Finetunings([], [], {})
    for name, points in study.finetuning.items():
        for choice in points:
            conversations = _conversations(choice, data, folder, f"finetuning.{name}", made.locations)
            made.conversations.append(conversations)
            for start in _starts(study, tracks, data, choice, f"finetuning.{name}"):
                made.points.append(_point(name, choice, start, conversations))
    # Two points of a grid that come to the same recipe are one; two entries that do have a row each.
    distinct = {(point.columns["run"], point.node.name): point for point in made.points}
    return replace(made, points=[*distinct.values()], scale=_scale(study, made.points))


def _scale(study: Study, points: list[Point]) -> str:
    sizes = sorted({si(point.columns["parameters"]) for point in points})
    examples = sorted({choice.data.examples for choices in study.finetuning.values() for choice in choices})
    seeds = len({(point.columns["seed"], point.columns["data_seed"]) for point in points})
    conversations = " or ".join(f"{count:,}" for count in examples)
    return (
        f"{study.study}: {', '.join(sizes)} parameters, {conversations} conversations, {seeds} seed{'s' * (seeds > 1)}"
    )


def _conversations(
    choice: FinetuningChoice, data: DataNodes, folder: Path, where: str, locations: dict[str, list[str]]
) -> Node:
    parents = {"tokenizer": data.parents["tokenizer"]}
    fields = choice.data.model_dump()
    source: recipes.ConversationSource
    match choice.data:
        case BuiltQuestionsChoice():
            source, label = recipes.BuiltQuestions(**fields), "questions"
            parents["corpus"] = data.corpus
        case FileConversationsChoice(paths=paths):
            files = [(folder / path).absolute() for path in paths]  # a link's target may have another name
            for path in files:
                if not path.is_file():
                    raise CoolbitsError(f"{where}.data.paths: {path} is no file")
                if not path.name.endswith(SUFFIXES):
                    raise CoolbitsError(f"{where}.data.paths: {path.name} ends in none of {', '.join(SUFFIXES)}")
            digests = tuple(file_digest(path) for path in files)
            locations |= {digest: [str(path)] for digest, path in zip(digests, files, strict=True)}
            named = {"names": tuple(path.name for path in files), "sha256": digests}
            source = recipes.FileConversations(**{key: item for key, item in fields.items() if key != "paths"} | named)
            label = slug(files[0].stem)
        case _:
            source, label = recipes.HubConversations(**fields), choice.data.id.rpartition("/")[2]
    recipe = recipes.Conversations(
        source=source, template=choice.template, loss_on=choice.loss_on, sequence_length=choice.sequence_length
    )
    return make_node("conversations", _slug(f"{label}-{choice.loss_on}"), recipe.identity(), parents)


def _starts(study: Study, tracks: list[Track], data: DataNodes, choice: FinetuningChoice, where: str) -> list[_Start]:
    start = choice.start
    if start.hub is not None:
        return [_hub_start(study, start.hub, data, choice, where)]
    if start.run not in study.runs:
        raise CoolbitsError(f"{where}.start.run: no run {start.run!r}; runs are {', '.join(study.runs) or 'none'}")
    ends = [track for track in tracks if track.ends_run and track.columns["run"] == start.run]
    if start.tokens is not None:
        ends = [track for track in ends if track.steps[-1] == round(start.tokens / track.recipe.batch_tokens)]
    if not ends:
        raise CoolbitsError(f"{where}.start.tokens: no trajectory of {start.run!r} ends at {start.tokens} tokens")
    for model in (track.recipe.model for track in ends):
        check_length(model, shape_of(model), choice.sequence_length, f"{where}.sequence_length", start.run)
    return [
        _Start(
            label=track.name,
            family=track.family,
            hub=None,
            parents={"start": track.checkpoint(track.steps[-1]).ref},
            columns=track.row(track.steps[-1]) | {"start": track.name},
        )
        for track in ends
    ]


def _hub_start(study: Study, hub: HubStart, data: DataNodes, choice: FinetuningChoice, where: str) -> _Start:
    own = study.data.tokenizer if study.data else None
    if not isinstance(own, HubTokenizer) or own.id != hub.id:
        raise CoolbitsError(
            f"{where}.start.hub: the model reads tokens of data.tokenizer, which must be its own: "
            f"{{kind: hub, id: {hub.id}}}"
        )
    label = _slug(hub.id.rpartition("/")[2])
    described = {"family": label, "model": label, "parameters": hub.parameters, "tokens": hub.tokens}
    return _Start(
        label=label,
        family=label,
        hub=recipes.HubModel(id=hub.id, revision=hub.revision, parameters=hub.parameters),
        parents={"tokenizer": data.parents["tokenizer"]},
        columns=described | {"seed": choice.seed, "start": hub.id},
    )


def _point(name: str, choice: FinetuningChoice, start: _Start, conversations: Node) -> Point:
    steps = -(-choice.data.examples // choice.batch_examples) * choice.epochs
    schedule = _schedule(choice, steps, f"finetuning.{name}.schedule")
    recipe = recipes.Finetuned(
        hub=start.hub,
        optimizer=choice.optimizer,
        schedule=schedule,
        peak_lr=choice.peak_lr,
        seed=choice.seed,
        steps=steps,
        batch_examples=choice.batch_examples,
        validate_steps=-(-steps // choice.validations),
        precision=choice.precision,
        clip_norm=choice.clip_norm,
        divergence=choice.divergence,
        log_steps=choice.log,
    )
    optimizer = _slug(optimizer_name(choice.optimizer).removesuffix("-32"))
    label = f"{optimizer}-lr{choice.peak_lr:g}-s{choice.seed}-{start.label}"
    node = make_node("finetuned", label, recipe.identity(), start.parents | {"conversations": conversations.ref})
    # Fine-tunings of one trunk share jobs, as its branches do; models of the hub are large: each has its own.
    family = node.name if start.hub else f"{name}-{start.family}"
    return Point(node, start.columns | _columns(name, choice, recipe, node), family)


def _schedule(choice: FinetuningChoice, steps: int, where: str) -> Schedule:
    warmup = round(choice.schedule.warmup * steps)
    if warmup >= steps:
        raise CoolbitsError(f"{where}.warmup: all of the {steps} steps; take a smaller share")
    if choice.schedule.kind == "constant":
        return Constant(warmup_steps=warmup)
    shape = Cosine if choice.schedule.kind == "cosine" else Linear
    return shape(warmup_steps=warmup, total_steps=steps, final_fraction=choice.schedule.final_fraction)


def _columns(name: str, choice: FinetuningChoice, recipe: recipes.Finetuned, node: Node) -> dict[str, Any]:
    """Return the columns of a fine-tuned model over those of its start, of which it keeps model, seed and tokens."""
    falling = choice.schedule.kind != "constant"
    return {
        "run": name,
        "trajectory": node.name,
        "optimizer": choice.optimizer.kind,
        "states": states_label(choice.optimizer),
        "beta2": getattr(choice.optimizer, "beta2", None),
        "weight_decay": choice.optimizer.weight_decay,
        "schedule": choice.schedule.kind,
        "peak_lr": choice.peak_lr,
        "data_seed": choice.seed,
        "branch_tokens": None,
        "budget_tokens": None,
        "decay_tokens": None,
        "decay_shape": choice.schedule.kind if falling else None,
        "final_fraction": choice.schedule.final_fraction if falling else None,
        "step": recipe.steps,
        "lr": learning_rate(recipe.schedule, recipe.peak_lr, recipe.steps - 1),
        "phase": "decay" if falling else "stable",
        "source": "finetuned",
        "average": None,
        "window": None,
        "final": True,
    }


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower()).strip("-").removesuffix("-32")
