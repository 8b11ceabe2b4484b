"""From the study's `averages` to nodes: which checkpoints are members of which average."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import canonical_json
from coolbits.artifacts.node import Node, make_node
from coolbits.study.measurements import Point
from coolbits.study.recipes.averaging import Average
from coolbits.study.schema import Ema, Lawa, Merge, Soup, Study
from coolbits.study.track import Track
from coolbits.study.units import si


@dataclass(frozen=True)
class Averages:
    """The averages as points to measure, and the checkpoints they need besides those that runs keep."""

    points: list[Point]
    members: list[Node]


def averages(study: Study, tracks: list[Track]) -> Averages:
    """Resolve every average of the study against its trajectories.

    Raises:
        CoolbitsError: if a run does not exist, a window has no room, or there is nothing to average.
    """
    points: list[Point] = []
    members: list[Node] = []
    for name, choice in study.averages.items():
        if choice.run not in study.runs:
            raise CoolbitsError(f"averages.{name}.run: no run {choice.run!r}; runs are {', '.join(study.runs)}")
        of_run = [track for track in tracks if track.columns["run"] == choice.run]
        made = _windows(name, choice, of_run) if isinstance(choice, Lawa | Ema) else _groups(name, choice, of_run)
        for point, nodes in made:
            points.append(point)
            members.extend(nodes)
    return Averages(points, members)


def _windows(name: str, choice: Lawa | Ema, of_run: list[Track]) -> list[tuple[Point, list[Node]]]:
    """Return an average at each wanted place of each trunk; one whose window reaches before the start is not made."""
    made = []
    for track in (track for track in of_run if track.columns["schedule"] == "constant"):
        batch = track.recipe.batch_tokens
        stride, end = round(choice.every / batch), track.steps[-1]
        if stride == 0:
            raise CoolbitsError(f"averages.{name}.every: {choice.every} tokens is less than a step of {batch}")
        places = {end} | {round(tokens / batch) for tokens in choice.checkpoints.at}
        if max(places) > end:
            beyond = f"{si(max(choice.checkpoints.at))} tokens is beyond the trunk's end at {si(end * batch)}"
            raise CoolbitsError(f"averages.{name}.checkpoints.at: {beyond}")
        if choice.checkpoints.every is not None:
            places.update(range(0, end, max(1, round(choice.checkpoints.every / batch))))
        full = sorted(place for place in places if place - (choice.window - 1) * stride > 0)
        if not full:
            raise CoolbitsError(
                f"averages.{name}.window: {choice.window} checkpoints {stride * batch:,} tokens apart do not fit in "
                f"the trunk's {end * batch:,}; at most {-(-end // stride)} do"
            )
        decay = choice.decay if isinstance(choice, Ema) else None
        for place in full:
            steps = [place - back * stride for back in reversed(range(choice.window))]
            nodes = [track.checkpoint(step) for step in steps]
            columns = track.row(place) | {"final": place == end}
            made.append((_point(name, choice.kind, nodes, columns, track.family, decay=decay), nodes))
    if not made:
        raise CoolbitsError(f"averages.{name}.run: {choice.run!r} has no constant schedule to average along")
    return made


def _groups(name: str, choice: Soup | Merge, of_run: list[Track]) -> list[tuple[Point, list[Node]]]:
    """Return one average for each set of last checkpoints that agree in everything but `over`."""
    ends = [track for track in of_run if track.ends_run]
    branches = [track for track in ends if "start" in track.parents]
    groups: dict[str, list[Track]] = defaultdict(list)
    for track in branches or ends:
        free: set[str] = {choice.over, "data_seed"}
        groups[canonical_json([track.recipe.model_dump(mode="json", exclude=free), track.steps[-1]])].append(track)
    made = []
    weights = choice.weights if isinstance(choice, Merge) else None
    for group in groups.values():
        if len(group) < 2:
            raise CoolbitsError(
                f"averages.{name}.over: no two trajectories of {choice.run!r} differ in {choice.over} alone; give "
                f"runs.{choice.run}.{choice.over} two values or more"
            )
        if weights is not None and len(weights) != len(group):
            raise CoolbitsError(
                f"averages.{name}.weights: {len(weights)}, but {len(group)} trajectories of {choice.run!r} agree in "
                f"all but {choice.over}; give each a weight"
            )
        nodes = [track.checkpoint(track.steps[-1]) for track in group]
        columns = group[0].row(group[0].steps[-1])
        made.append((_point(name, choice.kind, nodes, columns, group[0].family, weights=weights), nodes))
    return made


def _point(name: str, kind: str, nodes: list[Node], columns: dict[str, Any], family: str, **knobs: Any) -> Point:
    recipe = Average(kind=kind, members=len(nodes), **knobs).identity()
    parents = {f"member.{index}": node.ref for index, node in enumerate(nodes)}
    label = f"{kind}{len(nodes)}-{nodes[-1].name.replace('/', '-')}"
    described = columns | {"source": "average", "average": kind, "window": len(nodes), "run": name}
    return Point(make_node("average", label, recipe, parents), described, family)
