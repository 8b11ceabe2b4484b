"""The plan: a study resolved into nodes, with parents and fingerprints, and into jobs that make them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import is_text
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.study.averages import averages
from coolbits.study.calibrations import quantizers
from coolbits.study.finetuning import finetunings
from coolbits.study.fits import check_fits
from coolbits.study.load import load_study
from coolbits.study.measurements import Point, measure, unmeasured
from coolbits.study.outcomes import outcomes
from coolbits.study.pretrained import pretrained
from coolbits.study.schema import Study
from coolbits.study.sources import DataNodes, data_nodes
from coolbits.study.track import Track
from coolbits.study.trajectories import tracks
from coolbits.study.vision import vision
from coolbits.study.weights import model_weights

KINDS = (
    "corpus",
    "pretrained",
    "tokenizer",
    "shards",
    "checkpoint",
    "average",
    "conversations",
    "finetuned",
    "calibration",
    "quantized",
    "evaluation",
    "analysis",
    "images",
    "classifier",
    "table",
    "figure",
    "claims",
)


@dataclass(frozen=True)
class Plan:
    """Every node of a study, in an order in which each comes after its parents.

    `batches` maps a node of a batched kind to the batch that one job makes. `unmeasured` names by section what the
    study declares and measures nothing of.
    """

    study: Study
    nodes: tuple[Node, ...]
    tracks: tuple[Track, ...]
    batches: dict[str, str]
    locations: dict[str, list[str]]
    unmeasured: dict[str, list[str]]

    def of_kind(self, kind: str) -> list[Node]:
        """Return the nodes of one kind."""
        return list(self._of_kinds.get(kind, ()))

    @cached_property
    def _of_kinds(self) -> dict[str, list[Node]]:
        kinds: dict[str, list[Node]] = {}
        for node in self.nodes:
            kinds.setdefault(node.kind, []).append(node)
        return kinds

    @cached_property
    def known(self) -> dict[tuple[str, str], Node]:
        """The nodes by kind and name."""
        return {(node.kind, node.name): node for node in self.nodes}

    @cached_property
    def weights(self) -> dict[tuple[str, str], int]:
        """The parameters of each model of text, and of the one behind what is made of it, by kind and name."""
        return model_weights(self.nodes)

    def targets(self) -> list[Node]:
        """Return the nodes that no other needs: making these makes all."""
        needed = {(ref.kind, ref.name) for node in self.nodes for ref in node.parents.values()}
        return [node for node in self.nodes if (node.kind, node.name) not in needed]

    def jobs(self, kind: str) -> list[Job]:
        """Return the jobs of one kind: nodes of a batch share one, so that they share the start of Python."""
        batches: dict[str, list[Node]] = {}
        for node in self.of_kind(kind):
            batches.setdefault(self.batches.get(f"{kind}/{node.name}", node.name), []).append(node)
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
    data = data_nodes(study.data, folder) if study.data else DataNodes((), {}, 0)
    seen = vision(study, folder)
    found = [
        track
        for name, points in study.runs.items()
        for run in points
        for track in tracks(name, run, data.vocabulary_size, data.parents)
    ]
    points = [Point.of_track(track, step) for track in found for step in track.steps]
    averaged = averages(study, found)
    tuned = finetunings(study, found, data, folder)
    given, quantized = pretrained(study, data, folder), quantizers(study, folder)
    points += [*averaged.points, *tuned.points, *given.points]
    read = [*data.nodes, *given.data]
    nodes = _unique([*read, *averaged.members, *tuned.conversations, *(point.node for point in points)])
    measured = measure(study, quantized.recipes, points, data)
    check_fits(study, quantized.recipes, found)
    owned = [
        *((node, node.name.partition("/")[0]) for node in nodes if node.kind == "checkpoint"),
        *((point.node, point.family) for point in points if point.node.kind == "average"),
        *((point.node, point.node.name) for point in tuned.points),
        *measured.families,
    ]
    pools = _pools(study, found, tuned.points)
    batches = {f"{node.kind}/{node.name}": pools(node.kind, owner) for node, owner in owned}
    results = outcomes(study, found, measured, _tokens(found), seen, tuned)
    if study.figures:
        # A second of imports that only figures need.
        from coolbits.study.drawable import check_drawable

        check_drawable(study, results)
    nodes = _unique([*nodes, *measured.nodes, *seen.nodes, *results])
    locations = data.locations | seen.locations | tuned.locations | given.locations | quantized.locations
    for path in (path for paths in locations.values() for path in paths):
        if not is_text(Path(path)):
            raise CoolbitsError(f"{path}: not valid UTF-8, which the files that tell jobs are; rename the folder")
    missed = unmeasured(study, measured.rows)
    return Plan(study, tuple(_ordered(nodes)), tuple(found), batches | seen.batches, locations, missed)


def _pools(study: Study, found: list[Track], tuned: list[Point]) -> Callable[[str, str], str]:
    """Return the function (kind, trajectory or family) -> batch of nodes that one job makes.

    A trunk that several runs share goes with the first of them, and all its branches with it.
    """
    roots = {track.name: track.family for track in found}
    runs = {track.family: f"{study.study}-{track.columns['run']}" for track in reversed(found)}
    roots |= {point.node.name: point.family for point in tuned}
    runs |= {point.family: f"{study.study}-{point.columns['run']}" for point in tuned}

    def pool(kind: str, owner: str) -> str:
        trains = kind in ("checkpoint", "finetuned")
        together = study.execution.training_jobs if trains else study.execution.measuring_jobs
        if together == "trajectory":
            return owner
        family = roots.get(owner, owner)
        return runs.get(family, family) if together == "run" else family

    return pool


def _tokens(found: Iterable[Track]) -> int:
    return max((track.steps[-1] * track.recipe.batch_tokens for track in found), default=0)


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
