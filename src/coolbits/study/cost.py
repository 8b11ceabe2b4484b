"""What a study costs before it is paid: tokens, FLOPs, hours, what sharing saves, disk."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coolbits.artifacts.node import Node
from coolbits.models.counts import flops_per_token
from coolbits.study.durations import (
    asks_for_gpu,
    busy_cores,
    classifier_flops,
    first_step,
    job_seconds,
    of_unknown_length,
    text_bytes,
    tuning_flops,
    tuning_tokens,
)
from coolbits.study.footprint import gpu_bytes
from coolbits.study.plan import KINDS, Plan
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.recipes.training import Trajectory
from coolbits.study.standing import Key, key_of, standing, stands
from coolbits.study.training_memory import state_bytes
from coolbits.study.vision import vision_bytes

_FLOAT32 = 4


@dataclass(frozen=True)
class Cost:
    """Totals of a study.

    `tokens` and `flops` are trained with trunks shared, fine-tunings included; the `naive` ones are what separate runs
    would train. `image_flops` are those of `flops` that train image classifiers, which have no tokens. `bytes` is the
    disk that text, models and sets of images take together, `unknown_bytes` what of it is a guess: that of a corpus
    whose length nobody has said. `gpu_hours` and `gpu_bytes`, the most memory that a job takes of a GPU, are 0 where
    none is asked for.
    """

    nodes: int
    existing: int
    jobs: int
    tokens: int
    tokens_left: int
    naive_tokens: int
    flops: float
    image_flops: float
    naive_flops: float
    bytes: int
    unknown_bytes: int
    gpu_bytes: int
    core_hours: float
    gpu_hours: float
    longest_job_hours: float

    @property
    def saved(self) -> float:
        """Share of the naive FLOPs that sharing trunks saves."""
        return 1 - self.flops / self.naive_flops if self.naive_flops else 0.0


def study_cost(plan: Plan, kept: Collection[Key]) -> Cost:
    """Add up what a plan trains, and what of it is left to do where all of `kept` stands."""
    ends: dict[str, tuple[Trajectory, int]] = {}
    naive_tokens, naive_flops = 0, 0.0
    for track in plan.tracks:
        end = track.steps[-1]
        ends[track.name] = (track.recipe, max(end, ends.get(track.name, (track.recipe, 0))[1]))
        if track.ends_run:
            naive_tokens += end * track.recipe.batch_tokens
            naive_flops += end * track.recipe.batch_tokens * _flops(track.recipe)
    tokens = {name: (end - first_step(recipe)) * recipe.batch_tokens for name, (recipe, end) in ends.items()}
    tuned = {node.name: tuning_tokens(node, plan) for node in plan.of_kind("finetuned")}
    images = sum(classifier_flops(node, plan) for node in plan.of_kind("classifier"))
    unshared = images + sum(tuning_flops(node, plan) for node in plan.of_kind("finetuned"))
    flops = unshared + sum(tokens[name] * _flops(recipe) for name, (recipe, _) in ends.items())
    return Cost(
        nodes=len(plan.nodes),
        existing=sum(stands(node, kept) for node in plan.nodes),
        jobs=sum(len(plan.jobs(kind)) for kind in KINDS),
        tokens=sum(tokens.values()) + sum(tuned.values()),
        tokens_left=_tokens_left(plan, kept)
        + sum(tuned[node.name] for node in plan.of_kind("finetuned") if not stands(node, kept)),
        naive_tokens=naive_tokens + sum(tuned.values()),
        flops=flops,
        image_flops=images,
        naive_flops=naive_flops + unshared,
        bytes=sum(_disk_bytes(node, plan) for node in plan.nodes),
        unknown_bytes=sum(_disk_bytes(node, plan) for node in plan.nodes if of_unknown_length(node, plan)),
        gpu_bytes=max(
            (gpu_bytes(job, plan) for kind in KINDS if asks_for_gpu(kind, plan) for job in plan.jobs(kind)), default=0
        ),
        **_hours(plan),
    )


def _tokens_left(plan: Plan, kept: Collection[Key]) -> int:
    """Add up the tokens on the way to each checkpoint that is to be made, from the one before it or from the start."""
    recipes = {track.name: track.recipe for track in plan.tracks}
    reached = {name: first_step(recipe) for name, recipe in recipes.items()}
    left = 0
    for node in sorted(plan.of_kind("checkpoint"), key=lambda node: node.recipe["step"]):
        name, step = node.name.partition("/")[0], node.recipe["step"]
        if not stands(node, kept):
            left += (step - reached[name]) * recipes[name].batch_tokens
        reached[name] = step
    return left


def _hours(plan: Plan) -> dict[str, float]:
    """Estimate the hours of the whole study: of cores, of GPUs where they are asked for, of its longest job."""
    cores, gpus, longest = 0.0, 0.0, 0.0
    for kind in KINDS:
        for job in plan.jobs(kind):
            seconds = job_seconds(job, plan)
            longest = max(longest, seconds)
            if asks_for_gpu(kind, plan):
                gpus += seconds
            else:
                cores += seconds * busy_cores(kind, plan)
    return {"core_hours": cores / 3600, "gpu_hours": gpus / 3600, "longest_job_hours": longest / 3600}


def _flops(recipe: Trajectory) -> float:
    return flops_per_token(recipe.model, recipe.sequence_length)


def _disk_bytes(node: Node, plan: Plan) -> int:
    """Estimate the disk of text, a model or images: weights, optimizer states, codes; the rest is small."""
    weights = plan.weights.get(key_of(node), 0)
    match node.kind:
        case "corpus" | "shards":
            # Compressed, text takes half; so it does in tokens of two bytes, which stand for some four of text each.
            return round(text_bytes(node, plan) / 2)
        case "checkpoint":
            recipe = Trajectory.read(node.recipe["trajectory"])
            return _FLOAT32 * weights + state_bytes(recipe.model, recipe.optimizer)
        case "average" | "finetuned":
            return _FLOAT32 * weights
        case "quantized":
            saved = _FLOAT32 if node.recipe["save_model"] else 0
            return weights * Quantized.read(node.recipe).method.bits // 8 + weights * saved
        case "pretrained":
            return weights * (_FLOAT32 if node.recipe["dtype"] == "float32" else 2)
        case "images" | "classifier":
            return vision_bytes(node, {images.name: images for images in plan.of_kind("images")})
        case _:
            return 0


def plan_report(plan: Plan, root: Path) -> dict[str, Any]:
    """Return the plan as JSON values: the totals and every node; it `exists` if a run of the workflow keeps it."""
    kept = standing(plan, root)
    cost = study_cost(plan, kept)
    nodes = [
        {
            "kind": node.kind,
            "name": node.name,
            "fingerprint": node.fingerprint,
            "exists": stands(node, kept),
            "parents": {role: f"{ref.kind}/{ref.name}" for role, ref in node.parents.items()},
            "recipe": node.recipe,
        }
        for node in plan.nodes
    ]
    costs = asdict(cost) | {"saved": cost.saved}
    return {"study": plan.study.study, "cost": costs, "unmeasured": plan.unmeasured, "nodes": nodes}
