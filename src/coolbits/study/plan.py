"""The plan: a study resolved into nodes, with parents and fingerprints, and into jobs that make them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.study.averages import averages
from coolbits.study.load import load_study
from coolbits.study.measurements import Point, measure
from coolbits.study.outcomes import outcomes
from coolbits.study.schema import Study
from coolbits.study.sources import data_nodes
from coolbits.study.track import Track
from coolbits.study.trajectories import tracks

KINDS = (
    "corpus",
    "tokenizer",
    "shards",
    "checkpoint",
    "average",
    "quantized",
    "evaluation",
    "table",
    "figure",
    "claims",
)


@dataclass(frozen=True)
class Plan:
    """Every node of a study, in an order in which each comes after its parents.

    `families` maps a node of a batched kind to the family whose job makes it.
    """

    study: Study
    nodes: tuple[Node, ...]
    tracks: tuple[Track, ...]
    families: dict[str, str]
    locations: dict[str, list[str]]

    def of_kind(self, kind: str) -> list[Node]:
        """Return the nodes of one kind."""
        return [node for node in self.nodes if node.kind == kind]

    def targets(self) -> list[Node]:
        """Return the nodes that no other needs: making these makes all."""
        needed = {(ref.kind, ref.name) for node in self.nodes for ref in node.parents.values()}
        return [node for node in self.nodes if (node.kind, node.name) not in needed]

    def jobs(self, kind: str) -> list[Job]:
        """Return the jobs of one kind: nodes of a family share one, so that they share the start of Python."""
        batches: dict[str, list[Node]] = {}
        for node in self.of_kind(kind):
            batches.setdefault(self.families.get(f"{kind}/{node.name}", node.name), []).append(node)
        execution = self.study.execution.identity()
        return [
            Job(kind, f"{kind}-{name.replace('/', '-')}", tuple(nodes), execution, self.locations)
            for name, nodes in batches.items()
        ]


def make_plan(path: Path) -> Plan:
    """Read the study file at `path` and resolve it.

    Raises:
        CoolbitsError: naming the file and the key that is wrong.
    """
    study = load_study(path)
    try:
        return resolve(study, path.parent)
    except CoolbitsError as error:
        raise CoolbitsError(f"{path}: {error}") from None


def resolve(study: Study, folder: Path) -> Plan:
    """Resolve a study whose relative paths start at `folder`."""
    data = data_nodes(study.data, folder)
    found = [
        track
        for name, points in study.runs.items()
        for run in points
        for track in tracks(name, run, data.vocabulary_size, data.parents)
    ]
    points = [Point.of_track(track, step) for track in found for step in track.steps]
    averaged = averages(study, found)
    points += averaged.points
    nodes = _unique([*data.nodes, *averaged.members, *(point.node for point in points)])
    measured = measure(study, points, data)
    families = {
        f"{node.kind}/{node.name}": family
        for node, family in [
            *((point.node, point.family) for point in points if point.node.kind == "average"),
            *measured.families,
        ]
    }
    roots = {track.name: track.family for track in found}
    whole = study.execution.training_jobs == "family"
    for node in nodes:
        if node.kind == "checkpoint":
            trajectory = node.name.partition("/")[0]
            families[f"checkpoint/{node.name}"] = roots[trajectory] if whole else trajectory
    nodes = _unique([*nodes, *measured.nodes, *outcomes(study, found, measured, _tokens(found))])
    return Plan(study, tuple(_ordered(nodes)), tuple(found), families, data.locations)


def _tokens(found: Iterable[Track]) -> int:
    return max(track.steps[-1] * track.recipe.batch_tokens for track in found)


def _unique(nodes: Iterable[Node]) -> list[Node]:
    """Drop repeats; two different recipes under one name are refused rather than mixed up."""
    seen: dict[tuple[str, str], Node] = {}
    for node in nodes:
        known = seen.setdefault((node.kind, node.name), node)
        if known.fingerprint != node.fingerprint:
            raise CoolbitsError(f"{node.kind}/{node.name}: two recipes share this name; rename one of them")
    return list(seen.values())


def _ordered(nodes: list[Node]) -> Iterator[Node]:
    """Yield by kind, and checkpoints after those they start from."""
    for kind in KINDS:
        of_kind = [node for node in nodes if node.kind == kind]
        if kind == "checkpoint":
            of_kind.sort(key=lambda node: (int("start" in node.parents), node.name))
        yield from of_kind
