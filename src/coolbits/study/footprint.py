"""How much memory a job takes: what a cluster is asked for, by arithmetic."""

from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node, Ref
from coolbits.models.counts import parameter_counts
from coolbits.models.shapes import shape_of
from coolbits.study.plan import Plan
from coolbits.study.recipes.evaluation import Evaluation
from coolbits.study.recipes.ptq import GPTQ, Quantized
from coolbits.study.recipes.training import Trajectory

_LIBRARIES_MB = 2500  # torch, transformers and the allocator's slack
_MARGIN = 1.3  # a job killed for memory costs more than one that asked for too much
_FLOAT32, _FLOAT64 = 4, 8
_LOGIT_COPIES = 3  # logits, their logarithms, their gradient


def job_megabytes(job: Job, plan: Plan) -> int:
    """Estimate the memory of the host that a job takes, in MB: that of its largest node.

    Training on a CPU keeps weights, gradients, optimizer states and activations; on an accelerator the host only loads
    and saves. A token's activations take 34 * width + 5 * heads * length bytes a layer (Korthikanti et al. 2022).
    """
    known = {(node.kind, node.name): node for node in plan.nodes}
    largest = max((_node_bytes(node, known, plan) for node in job.nodes), default=0)
    return _LIBRARIES_MB + round(_MARGIN * largest / 1e6)


def _node_bytes(node: Node, known: dict[tuple[str, str], Node], plan: Plan) -> int:
    recipe = _trajectory_of(node, known)
    if recipe is None:
        return 5 * _FLOAT32 * node.recipe["hub"]["parameters"] if node.kind == "finetuned" else 0
    shape, weights = shape_of(recipe.model), _FLOAT32 * parameter_counts(recipe.model).total
    match node.kind:
        case "checkpoint" | "finetuned":
            on_host = plan.study.execution.device != "cuda"
            return 5 * weights + (_activation_bytes(recipe, plan) if on_host else 0)
        case "evaluation":
            measure = Evaluation.read(node.recipe).measure
            scored = measure.batch_size * recipe.sequence_length
            return 2 * weights + _LOGIT_COPIES * _FLOAT32 * scored * shape.vocabulary
        case "quantized":
            method = Quantized.read(node.recipe).method
            if not isinstance(method, GPTQ):
                return 2 * weights
            calibrated = method.calibration.sequences * method.calibration.sequence_length
            hessians = 4 * _FLOAT64 * max(shape.inner_width, shape.width) ** 2
            return 2 * weights + hessians + 2 * _FLOAT32 * calibrated * shape.width
        case _:
            return 3 * weights


def _activation_bytes(recipe: Trajectory, plan: Plan) -> int:
    shape, batch = shape_of(recipe.model), recipe.batch_tokens // recipe.sequence_length
    sequences = min(batch, plan.study.execution.micro_batch_sequences or batch)
    layer = 34 * shape.width + 5 * shape.heads * recipe.sequence_length
    logits = _LOGIT_COPIES * _FLOAT32 * shape.vocabulary
    return sequences * recipe.sequence_length * (shape.layers * layer + logits)


def _trajectory_of(node: Node, known: dict[tuple[str, str], Node]) -> Trajectory | None:
    """Return the trajectory of the model that a node makes or measures; None if it has none in the plan."""
    if node.kind == "checkpoint":
        return Trajectory.read(node.recipe["trajectory"])
    ref: Ref | None = next(
        (node.parents[role] for role in ("model", "member.0", "start") if role in node.parents), None
    )
    parent = known.get((ref.kind, ref.name)) if ref else None
    return _trajectory_of(parent, known) if parent else None
