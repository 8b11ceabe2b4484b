"""How much memory a job takes: what a cluster is asked for, by arithmetic."""

from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node, Ref
from coolbits.models.shapes import shape_of
from coolbits.study.durations import calibration_tokens
from coolbits.study.measure_cost import kept_vectors
from coolbits.study.plan import Plan
from coolbits.study.quantization_memory import peak_bytes, sizes_of
from coolbits.study.recipes.evaluation import Curvature, Evaluation, Prediction
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.recipes.training import Trajectory

_LIBRARIES_MB = 2500  # torch, transformers and the allocator's slack
_MARGIN = 1.3  # a job killed for memory costs more than one that asked for too much
_FLOAT32 = 4
_VOCABULARY, _QUESTION_TOKENS = 1 << 17, 512  # of a model and a task that the plan has not read
_LOGIT_COPIES = 3  # logits, their logarithms, their gradient
_GRAPH_COPIES = 6  # of activations, where the gradient is differentiated again, in float32
_WIDTH = 2.2  # over the cube root of the weights, at most: of models of 0.1 to 70 billion it is 1.1 to 2.2


def job_megabytes(job: Job, plan: Plan) -> int:
    """Estimate the memory of the host that a job takes, in MB: that of its largest node.

    Training on a CPU keeps weights, gradients, optimizer states and activations, measuring its vectors and graph; with
    an accelerator the host only loads and saves. A token's activations take 34 * width + 5 * heads * length bytes a
    layer (Korthikanti et al. 2022).
    """
    if job.kind == "quantized":
        largest = max(_quantized_bytes(nodes, plan) for nodes in _by_model(job))
    else:
        largest = max((_node_bytes(node, plan) for node in job.nodes), default=0)
    return _LIBRARIES_MB + round(_MARGIN * largest / 1e6)


def _node_bytes(node: Node, plan: Plan) -> int:
    recipe = _trajectory_of(node, plan.known)
    if recipe is None:
        return _foreign_bytes(node, plan)
    shape, weights = shape_of(recipe.model), _weight_bytes(node, plan)
    match node.kind:
        case "checkpoint" | "finetuned":
            return 5 * weights + (_activation_bytes(recipe, plan) if _on_host(plan) else 0)
        case "evaluation" if _on_host(plan):
            measure = Evaluation.read(node.recipe).measure
            scored = measure.batch_size * recipe.sequence_length
            kept = (1 + kept_vectors(measure)) * weights + _LOGIT_COPIES * _FLOAT32 * scored * shape.vocabulary
            twice = isinstance(measure, Curvature | Prediction)
            return kept + (_GRAPH_COPIES * scored * _layer_bytes(recipe) * shape.layers if twice else 0)
        case _:
            return 3 * weights


def _by_model(job: Job) -> list[list[Node]]:
    """Group quantizations by their models: those of one are made at once."""
    groups: dict[str, list[Node]] = {}
    for node in job.nodes:
        groups.setdefault(str(node.parents["model"]), []).append(node)
    return list(groups.values())


def _quantized_bytes(nodes: list[Node], plan: Plan) -> int:
    recipe = _trajectory_of(nodes[0], plan.known)
    if recipe is None:
        return max(_foreign_bytes(node, plan) for node in nodes)
    quantizers = [Quantized.read(node.recipe) for node in nodes]
    return peak_bytes(sizes_of(recipe.model), quantizers, _FLOAT32, not _on_host(plan)).host


def _on_host(plan: Plan) -> bool:
    """Whether jobs may compute in the memory of the host: `auto` does where there is no accelerator."""
    return plan.study.execution.device != "cuda"


def _weight_bytes(node: Node, plan: Plan) -> int:
    return _FLOAT32 * plan.weights.get((node.kind, node.name), 0)


def _foreign_bytes(node: Node, plan: Plan) -> int:
    """Estimate the same for a model that others trained, of which the plan knows the number of weights alone."""
    weights = _weight_bytes(node, plan)
    match node.kind:
        case "finetuned":
            return 5 * weights
        case "evaluation" if weights and _on_host(plan):
            measure = Evaluation.read(node.recipe).measure
            scored = measure.batch_size * getattr(measure, "sequence_length", _QUESTION_TOKENS)
            return 2 * weights + _LOGIT_COPIES * _FLOAT32 * scored * _VOCABULARY
        case "quantized":
            width = _WIDTH * (weights / _FLOAT32) ** (1 / 3)
            # Hidden states of the whole calibration, before and after a block.
            return 3 * weights + round(2 * _FLOAT32 * calibration_tokens(node) * width)
        case _:
            return 3 * weights


def _activation_bytes(recipe: Trajectory, plan: Plan) -> int:
    shape, batch = shape_of(recipe.model), recipe.batch_tokens // recipe.sequence_length
    sequences = min(batch, plan.study.execution.micro_batch_sequences or batch)
    logits = _LOGIT_COPIES * _FLOAT32 * shape.vocabulary
    return sequences * recipe.sequence_length * (shape.layers * _layer_bytes(recipe) + logits)


def _layer_bytes(recipe: Trajectory) -> int:
    """Return the bytes of a token's activations in a layer."""
    shape = shape_of(recipe.model)
    return 34 * shape.width + 5 * shape.heads * recipe.sequence_length


def _trajectory_of(node: Node, known: dict[tuple[str, str], Node]) -> Trajectory | None:
    """Return the trajectory of the model that a node makes or measures; None if it has none in the plan."""
    if node.kind == "checkpoint":
        return Trajectory.read(node.recipe["trajectory"])
    ref: Ref | None = next(
        (node.parents[role] for role in ("model", "member.0", "start") if role in node.parents), None
    )
    parent = known.get((ref.kind, ref.name)) if ref else None
    return _trajectory_of(parent, known) if parent else None
