"""From a study's analyses to nodes: presets and names resolved, last checkpoints of runs as parents."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pydantic import TypeAdapter

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.models.presets import preset
from coolbits.study.optimizer_names import optimizer_name, optimizer_preset
from coolbits.study.recipes.analysis import Analysis, Memory, NamedModel, NamedOptimizer, Source, Theory
from coolbits.study.recipes.training import Optimizer
from coolbits.study.schema import AnalysisChoice, MemoryChoice, Study
from coolbits.study.track import Track

ANALYSES = ("memory", "theory")
_OPTIMIZER: TypeAdapter[Optimizer] = TypeAdapter(Optimizer)
_Named = TypeVar("_Named", NamedModel, NamedOptimizer)


def analyses(study: Study, tracks: list[Track]) -> dict[str, Node]:
    """Return the nodes of the study's analyses, by kind.

    Raises:
        CoolbitsError: if two are of one kind, or one names a run, a model or an optimizer that there is not.
    """
    nodes: dict[str, Node] = {}
    for name, choice in study.analyses.items():
        kind = choice.analysis.kind
        if kind in nodes:
            raise CoolbitsError(f"analyses.{name}: a second analysis of kind {kind!r}; a study has one of each")
        nodes[kind] = _node(study, name, choice, tracks)
    return nodes


def _node(study: Study, name: str, choice: AnalysisChoice, tracks: list[Track]) -> Node:
    wanted = study.runs if choice.runs == "all" else choice.runs
    for run in wanted:
        if run not in study.runs:
            raise CoolbitsError(f"analyses.{name}.runs: no {run!r}; there are {', '.join(study.runs)}")
    if isinstance(choice.analysis, MemoryChoice):
        if choice.runs:
            raise CoolbitsError(f"analyses.{name}.runs: an analysis of memory looks at no runs, found {choice.runs!r}")
        memory = _memory(choice.analysis, f"analyses.{name}.analysis")
        return make_node("analysis", name, Analysis(analysis=memory).identity(), {})
    sources, parents = _sources([track for track in tracks if track.ends_run and track.columns["run"] in wanted])
    recipe = Theory(**choice.analysis.identity(), sources=sources)
    return make_node("analysis", name, Analysis(analysis=recipe).identity(), parents)


def _memory(choice: MemoryChoice, where: str) -> Memory:
    def model(name: str) -> NamedModel:
        return NamedModel(name=name, model=preset(name, choice.vocabulary_size, choice.sequence_length))

    def optimizer(name: str) -> NamedOptimizer:
        return NamedOptimizer(name=name, optimizer=_OPTIMIZER.validate_python(optimizer_preset(name)))

    return Memory(
        models=tuple(_each(choice.models, model, f"{where}.models", "model: ")),
        optimizers=tuple(_each(choice.optimizers, optimizer, f"{where}.optimizers", "optimizer: ")),
    )


def _each(names: Iterable[str], make: Callable[[str], _Named], where: str, usual: str) -> Iterator[_Named]:
    """Yield what each name stands for; in a refusal the key `where` takes the place of the `usual` one."""
    for name in names:
        try:
            yield make(name)
        except CoolbitsError as error:
            raise CoolbitsError(f"{where}: {str(error).removeprefix(usual)}") from None


def _sources(tracks: list[Track]) -> tuple[tuple[Source, ...], dict[str, Ref]]:
    """Return what the rows say of each trajectory's last checkpoint, and the checkpoints by role; each once."""
    unique = {track.name: track for track in sorted(tracks, key=lambda track: track.steps[-1])}
    sources, parents = [], {}
    for place, track in enumerate(unique.values()):
        role = f"checkpoint.{place}"
        parents[role] = track.checkpoint(track.steps[-1]).ref
        optimizer = optimizer_name(track.recipe.optimizer)
        sources.append(Source(role=role, run=track.columns["run"], trajectory=track.name, optimizer=optimizer))
    return tuple(sources), parents
