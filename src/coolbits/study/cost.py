"""What a study costs before it is paid: tokens, FLOPs, what sharing saves, disk, time left."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST
from coolbits.artifacts.node import Node, Ref
from coolbits.models.counts import flops_per_token, parameter_counts
from coolbits.study.finetuning import tuning_flops, weights_of
from coolbits.study.measure_cost import forward_tokens
from coolbits.study.plan import KINDS, Plan
from coolbits.study.recipes.evaluation import Evaluation, Tasks
from coolbits.study.recipes.ptq import CALIBRATED, Quantized
from coolbits.study.recipes.training import Cooldown, Model, Trajectory
from coolbits.study.vision import pictures_to_decode, training_flops, vision_bytes

_START_SECONDS = {
    "corpus": 6.0,
    "pretrained": 20.0,
    "tokenizer": 12.0,
    "shards": 35.0,
    "checkpoint": 10.0,
    "average": 6.0,
    "conversations": 12.0,
    "finetuned": 10.0,
    "calibration": 6.0,
    "quantized": 10.0,
    "evaluation": 10.0,
    "analysis": 20.0,
    "images": 6.0,
    "classifier": 8.0,
}
_FLOPS_PER_SECOND = {"auto": 5e10, "cpu": 5e10, "cuda": 1e14}
_QUANTIZE_SECONDS = 0.7
_CALIBRATION_PASSES = 4  # what a calibrated method computes, in runs of the model over the tokens that it is shown
_TASK_SECONDS = 4.0
_TASK_QUESTIONS, _QUESTION_TOKENS = 2000, 200  # of a whole task; of a question with all of its choices
_PICTURE_SECONDS = 0.01
_CONVOLUTIONS_SLOWER = 2.0  # than matrix products, which the speeds above are of
_BYTES_PER_WEIGHT = 4
_STATES = {"adamw": 2, "adamc": 2, "sgd": 1, "muon": 1}


@dataclass(frozen=True)
class Cost:
    """Totals of a study.

    `tokens` and `flops` are trained with trunks shared; the `naive` ones are what separate runs would train. `bytes`
    is the disk that all models and sets of images take together.
    """

    nodes: int
    existing: int
    jobs: int
    tokens: int
    tokens_left: int
    naive_tokens: int
    flops: float
    naive_flops: float
    bytes: int

    @property
    def saved(self) -> float:
        """Share of the naive FLOPs that sharing trunks saves."""
        return 1 - self.flops / self.naive_flops if self.naive_flops else 0.0


def exists(node: Node, root: Path) -> bool:
    """Whether the node's artifact has been made below `root`."""
    return (node.directory(root) / MANIFEST).is_file()


def study_cost(plan: Plan, root: Path) -> Cost:
    """Add up what a plan trains, and what is already below `root`."""
    ends: dict[str, tuple[Trajectory, int]] = {}
    kept: dict[str, int] = defaultdict(int)
    naive_tokens, naive_flops = 0, 0.0
    for track in plan.tracks:
        end = track.steps[-1]
        ends[track.name] = (track.recipe, max(end, ends.get(track.name, (track.recipe, 0))[1]))
        if track.ends_run:
            naive_tokens += end * track.recipe.batch_tokens
            naive_flops += end * track.recipe.batch_tokens * _flops(track.recipe)
    for node in plan.of_kind("checkpoint"):
        if exists(node, root):
            name, _, step = node.name.partition("/step_")
            kept[name] = max(kept[name], int(step))
    tokens = {name: (end - _first_step(recipe)) * recipe.batch_tokens for name, (recipe, end) in ends.items()}
    done = {name: max(0, kept[name] - _first_step(recipe)) * recipe.batch_tokens for name, (recipe, _) in ends.items()}
    images = sum(_classifier_flops(node, plan) for node in plan.of_kind("classifier"))
    flops = images + sum(tokens[name] * _flops(recipe) for name, (recipe, _) in ends.items())
    return Cost(
        nodes=len(plan.nodes),
        existing=sum(exists(node, root) for node in plan.nodes),
        jobs=sum(len(plan.jobs(kind)) for kind in KINDS),
        tokens=sum(tokens.values()),
        tokens_left=sum(max(0, tokens[name] - done[name]) for name in tokens),
        naive_tokens=naive_tokens,
        flops=flops,
        naive_flops=naive_flops + images,
        bytes=_model_bytes(plan.nodes),
    )


def _first_step(recipe: Trajectory) -> int:
    return recipe.schedule.start_step if isinstance(recipe.schedule, Cooldown) else 0


def _flops(recipe: Trajectory) -> float:
    return flops_per_token(recipe.model, recipe.sequence_length)


def _classifier_flops(node: Node, plan: Plan) -> float:
    images = node.parents["images"].name
    return training_flops(node, next(parent for parent in plan.of_kind("images") if parent.name == images))


def _model_bytes(nodes: Iterable[Node]) -> int:
    """Estimate the disk of models and images, parents first: weights, optimizer states, codes; the rest is small."""
    weights: dict[tuple[str, str], int] = {}
    images: dict[str, Node] = {}
    total = 0
    for node in nodes:
        if node.kind == "checkpoint":
            recipe = node.recipe["trajectory"]
            count = parameter_counts(Model.read(recipe["model"])).total
            total += count * _BYTES_PER_WEIGHT * (1 + _STATES[recipe["optimizer"]["kind"]])
        elif node.kind == "average":
            count = weights[_key(node.parents["member.0"])]
            total += count * _BYTES_PER_WEIGHT
        elif node.kind == "quantized":
            count = weights[_key(node.parents["model"])]
            saved = _BYTES_PER_WEIGHT if node.recipe["save_model"] else 0
            total += count * Quantized.read(node.recipe).method.bits // 8 + count * saved
        elif node.kind == "pretrained":
            count = node.recipe["parameters"]
            total += count * (_BYTES_PER_WEIGHT if node.recipe["dtype"] == "float32" else 2)
        elif node.kind == "finetuned":
            hub = node.recipe["hub"]
            count = hub["parameters"] if hub else weights[_key(node.parents["start"])]
            total += count * _BYTES_PER_WEIGHT
        elif node.kind in ("images", "classifier"):
            images[node.name] = node
            total += vision_bytes(node, images)
            continue
        else:
            continue
        weights[_key(node)] = count
    return total


def _key(node: Node | Ref) -> tuple[str, str]:
    return node.kind, node.name


def job_seconds(job: Job, plan: Plan) -> float:
    """Estimate the seconds of one core that a job takes: to a factor of two, enough to say how much time is left."""
    seconds = _START_SECONDS.get(job.kind, 4.0)
    speed = _FLOPS_PER_SECOND[plan.study.execution.device]
    if job.kind == "checkpoint":
        last = {node.name.partition("/")[0]: node.recipe for node in sorted(job.nodes, key=lambda node: node.name)}
        for end in last.values():
            recipe = Trajectory.read(end["trajectory"])
            steps = end["step"] - _first_step(recipe)
            seconds += steps * recipe.batch_tokens * _flops(recipe) / speed
    elif job.kind == "images":
        seconds += sum(_PICTURE_SECONDS * pictures_to_decode(node) for node in job.nodes)
    elif job.kind == "classifier":
        seconds += _CONVOLUTIONS_SLOWER * sum(_classifier_flops(node, plan) for node in job.nodes) / speed
    elif job.kind == "finetuned":
        known = {node.name: node for node in plan.nodes}
        seconds += sum(tuning_flops(node, known) for node in job.nodes) / speed
    elif job.kind == "quantized":
        seconds += _QUANTIZE_SECONDS * len(job.nodes)
        read = _CALIBRATION_PASSES * sum(_calibration_tokens(node) for node in job.nodes)
        seconds += 2 * _largest_model(plan) * read / speed
    elif job.kind == "evaluation":
        largest = _largest_model(plan)
        for node in job.nodes:
            measure = Evaluation.read(node.recipe).measure
            if isinstance(measure, Tasks):
                seconds += _TASK_SECONDS * len(measure.tasks)
                read = len(measure.tasks) * (measure.limit or _TASK_QUESTIONS) * _QUESTION_TOKENS
            else:
                read = forward_tokens(measure)
            seconds += 2 * largest * read / speed
    return seconds


def _largest_model(plan: Plan) -> int:
    """Return the weights of the largest model of text."""
    starts = {node.name: node for node in plan.of_kind("checkpoint")}
    sizes = {int(track.columns["parameters"]) for track in plan.tracks}
    sizes |= {weights_of(node, starts) for node in plan.of_kind("finetuned")}
    return max(sizes | {int(node.recipe["parameters"]) for node in plan.of_kind("pretrained")})


def _calibration_tokens(quantized: Node) -> int:
    method = Quantized.read(quantized.recipe).method
    shown = method.calibration if isinstance(method, CALIBRATED) else None
    return shown.sequences * shown.sequence_length if shown else 0


def plan_report(plan: Plan, root: Path) -> dict[str, Any]:
    """Return the plan as JSON values: the totals and every node, with whether it exists."""
    cost = study_cost(plan, root)
    nodes = [
        {
            "kind": node.kind,
            "name": node.name,
            "fingerprint": node.fingerprint,
            "exists": exists(node, root),
            "parents": {role: f"{ref.kind}/{ref.name}" for role, ref in node.parents.items()},
            "recipe": node.recipe,
        }
        for node in plan.nodes
    ]
    return {"study": plan.study.study, "cost": asdict(cost) | {"saved": cost.saved}, "nodes": nodes}
