"""From the study's `averages` to nodes: which checkpoints are members of which average."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import canonical_json
from coolbits.artifacts.node import Node, make_node
from coolbits.study.measurements import Point
from coolbits.study.recipes.averaging import Average
from coolbits.study.schema import Ema, Lawa, Merge, Soup, Study
from coolbits.study.track import Track
from coolbits.study.units import si

# From a trajectory and the trunk at its root to what it has to share with others to be averaged with them.
_Sense = Callable[[Track, Track], list[Any]]


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
    made = []
    weights = choice.weights if isinstance(choice, Merge) else None
    for group in _alike(name, choice, of_run):
        if weights is not None and len(weights) != len(group):
            raise CoolbitsError(
                f"averages.{name}.weights: {len(weights)}, but {len(group)} trajectories of {choice.run!r} agree in "
                f"all but {choice.over}; give each a weight"
            )
        nodes = [track.checkpoint(track.steps[-1]) for track in group]
        point = _point(name, choice.kind, nodes, _common(group), group[0].family, weights=weights)
        own = {"trajectory": point.node.name, "members": " ".join(track.name for track in group)}
        made.append((replace(point, columns=point.columns | own), nodes))
    return made


def _alike(name: str, choice: Soup | Merge, of_run: list[Track]) -> list[list[Track]]:
    """Return the trajectories that end the run, each once, in groups that differ in `over` alone.

    If the run has branches, their ends are meant. Of several senses of "in `over` alone" the strictest is taken in
    which no trajectory stands alone.
    """
    ends = [track for track in of_run if track.ends_run]
    branches = [track for track in ends if "start" in track.parents]
    once = {(track.name, track.steps[-1]): track for track in branches or ends}
    trunks = {track.name: track for track in of_run}
    groupings = []
    for sense in _SENSES[choice.over]:
        groups: dict[str, list[Track]] = defaultdict(list)
        for track in once.values():
            groups[canonical_json(sense(track, trunks[track.family]))].append(track)
        groupings.append(list(groups.values()))
        if all(len(group) > 1 for group in groupings[-1]):
            return groupings[-1]
    if all(len(group) == 1 for groups in groupings for group in groups):
        raise CoolbitsError(
            f"averages.{name}.over: no two trajectories of {choice.run!r} differ in {choice.over} alone; give "
            f"runs.{choice.run}.{choice.over} two values or more"
        )
    alone = next(group[0].name for group in groupings[-1] if len(group) == 1)
    raise CoolbitsError(
        f"averages.{name}.over: the trajectory {alone} of {choice.run!r} differs from every other in more than "
        f"{choice.over}; give it a run of its own, or others that differ from it in {choice.over} alone"
    )


def _but(track: Track, *free: str) -> list[Any]:
    return [track.recipe.model_dump(mode="json", exclude=set(free)), track.steps[-1]]


def _order(track: Track, follows: bool) -> int | None:
    """Return the seed of the order of the data; None if it `follows` the seed and so differs with it."""
    recipe = track.recipe
    return None if follows and recipe.data_seed == recipe.seed else recipe.data_seed


def _seeds(own: bool, of_trunk: bool) -> _Sense:
    """Return the sense of "the seed alone" in which the order of the data may follow the seed, in branch or trunk."""
    return lambda track, trunk: [*_but(track, "seed", "data_seed"), _order(track, own), _order(trunk, of_trunk)]


# What trajectories agree in that differ in `over` alone, from the strictest sense on. A branch may read the data in an
# order of its own, so that its recipe does not say the trunk's.
_SENSES: dict[str, list[_Sense]] = {
    "data_seed": [
        lambda track, trunk: [*_but(track, "data_seed"), trunk.name],
        lambda track, _trunk: _but(track, "data_seed"),
    ],
    "peak_lr": [lambda track, trunk: [*_but(track, "peak_lr"), trunk.recipe.data_seed]],
    "seed": [_seeds(own=False, of_trunk=False), _seeds(own=False, of_trunk=True), _seeds(own=True, of_trunk=True)],
}


def _common(group: list[Track]) -> dict[str, Any]:
    """Return the columns in which the last checkpoints of a group agree, null where they differ."""
    rows = [track.row(track.steps[-1]) for track in group]
    return {name: value if all(row[name] == value for row in rows) else None for name, value in rows[0].items()}


def _point(name: str, kind: str, nodes: list[Node], columns: dict[str, Any], family: str, **knobs: Any) -> Point:
    recipe = Average(kind=kind, members=len(nodes), **knobs).identity()
    parents = {f"member.{index}": node.ref for index, node in enumerate(nodes)}
    label = f"{kind}{len(nodes)}-{nodes[-1].name.replace('/', '-')}"
    described = columns | {"source": "average", "average": kind, "window": len(nodes), "run": name}
    return Point(make_node("average", label, recipe, parents), described, family)
