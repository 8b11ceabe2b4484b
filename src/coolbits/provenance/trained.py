"""What was trained behind a result: trajectories, fine-tunings, classifiers; how long, on how much, which seeds."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coolbits.provenance.lineage import Artifact, Lineage
from coolbits.provenance.recipes import Fields, flatten
from coolbits.study.units import si

TRAININGS = {
    "checkpoint": ("pretrained", "tokens"),
    "finetuned": ("fine-tuned", "tokens"),
    "classifier": ("classifiers trained", "images"),
}


@dataclass(frozen=True)
class Trained:
    """All trainings of one kind: how many, their updates, the tokens or images in these, their seeds.

    A fine-tuning that diverged does not say how many tokens it saw: they are not counted.
    """

    trainings: int
    updates: int
    unit: str
    seen: int
    seeds: list[int]


def trajectories(lineage: Lineage) -> dict[str, Fields]:
    """Return the flat recipe of each trajectory, by name, with what was done along it as `steps` and `tokens`."""
    found: dict[str, Fields] = {}
    for artifact in lineage.of_kind("checkpoint"):
        recipe = artifact.manifest.recipe if artifact.manifest else {}
        fields = flatten(recipe.get("trajectory", {}))
        name = artifact.key[1].partition("/")[0]
        done = recipe.get("step", 0) - fields.get("schedule.start_step", 0)
        steps = max(done, found.get(name, {}).get("steps", 0))
        found[name] = {"steps": steps, "tokens": steps * fields.get("batch_tokens", 0)} | fields
    return found


def trained(lineage: Lineage, along: Mapping[str, Fields]) -> dict[str, Trained]:
    """Return what was trained behind a result, by kind of artifact; `along` has its `trajectories`.

    What a lost manifest knew is left out.
    """
    done: dict[str, list[tuple[int, int, Any]]] = defaultdict(list)
    for fields in along.values():
        done["checkpoint"].append((fields["steps"], fields["tokens"], fields.get("seed")))
    for artifact in finished(lineage, "finetuned"):
        steps, summary = _updates(artifact), artifact.manifest.summary if artifact.manifest else {}
        done["finetuned"].append((steps, summary.get("tokens", 0), _recipe(artifact).get("seed")))
    for artifact in finished(lineage, "classifier"):
        steps, recipe = _updates(artifact), _recipe(artifact)
        done["classifier"].append((steps, steps * recipe.get("batch_images", 0), recipe.get("seed")))
    return {kind: _together(TRAININGS[kind][1], group) for kind, group in done.items()}


def say_trained(found: Mapping[str, Trained]) -> str:
    """Say it in one line: `pretrained on 5.12k tokens in 20 updates, seeds 0; fine-tuned on ...`."""
    return "; ".join(
        f"{TRAININGS[kind][0]} on {si(group.seen)} {group.unit} in {group.updates:,} updates, "
        f"seeds {', '.join(map(str, group.seeds)) or 'unknown'}"
        for kind, group in found.items()
    )


def finished(lineage: Lineage, kind: str) -> Iterator[Artifact]:
    """Yield the trainings of a kind that took place: from a start that diverged there is none."""
    for artifact in lineage.of_kind(kind):
        start = lineage.artifacts.get(artifact.parents.get("start", ("", "")))
        lost = start is not None and start.manifest is not None and start.manifest.diverged
        if artifact.manifest is not None and not lost:
            yield artifact


def _updates(artifact: Artifact) -> int:
    summary = artifact.manifest.summary if artifact.manifest else {}
    return int(summary.get("diverged_step" if summary.get("outcome") == "diverged" else "step", 0))


def _recipe(artifact: Artifact) -> dict[str, Any]:
    return artifact.manifest.recipe if artifact.manifest else {}


def _together(unit: str, done: Iterable[tuple[int, int, Any]]) -> Trained:
    updates, seen, seeds = zip(*done, strict=True)
    known = sorted({seed for seed in seeds if seed is not None})
    return Trained(len(updates), sum(updates), unit, sum(seen), known)
