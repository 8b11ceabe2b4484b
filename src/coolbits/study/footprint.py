"""How much memory a job takes, on the host and on a GPU: what a cluster is asked for, by arithmetic."""

from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node, Ref
from coolbits.models.shapes import shape_of
from coolbits.study.measure_cost import kept_vectors
from coolbits.study.plan import Plan
from coolbits.study.quantization_memory import Peak, peak_bytes, sizes_of
from coolbits.study.recipes.evaluation import Curvature, Evaluation, Prediction
from coolbits.study.recipes.finetuning import Conversations, Finetuned
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.recipes.training import Model, Trajectory
from coolbits.study.recipes.vision import Classifier
from coolbits.study.training_memory import classifier_bytes, training_bytes
from coolbits.study.vision import count_classifier
from coolbits.vision.presets import ImageCounts

_LIBRARIES_MB = 2500  # torch, transformers and the allocator's slack
_MARGIN = 1.3  # a job killed for memory costs more than one that asked for too much
_FLOAT32 = 4
_VOCABULARY, _QUESTION_TOKENS = 1 << 17, 512  # of a model and a task that the plan has not read
_LOGIT_COPIES = 3  # logits, their logarithms, their gradient
_SCORES = 6  # bytes of an entry of attention's matrices that are kept where it is not fused: in float32, and rounded
_GRAPH_COPIES = 6  # of activations, where the gradient is differentiated again, in float32
_WIDTH = 2.2  # over the cube root of the weights, at most: of models of 0.1 to 70 billion it is 1.1 to 2.2
_HEAD_WIDTH = 128  # of a model of which only the number of weights is known


def job_megabytes(job: Job, plan: Plan) -> int:
    """Estimate the memory of the host that a job takes, in MB: that of its largest node.

    Training on a CPU keeps what it would keep on a GPU, the scores of attention, and a copy of the weights when it
    saves; measuring its vectors and graph, of which a token's activations take 34 * width + 5 * heads * length bytes a
    layer (Korthikanti et al. 2022). With an accelerator the host only loads and saves.
    """
    if job.kind == "quantized":
        largest = max(_quantized_peak(nodes, plan).host for nodes in _by_model(job))
    else:
        largest = max((_node_bytes(node, plan) for node in job.nodes), default=0)
    return _LIBRARIES_MB + round(_MARGIN * largest / 1e6)


def gpu_bytes(job: Job, plan: Plan) -> int:
    """Estimate the memory of a GPU that a job takes, in bytes: that of its largest node; libraries are not counted.

    0 for what computes on none.
    """
    match job.kind:
        case "classifier":
            return max(_classified_bytes(node, plan) for node in job.nodes)
        case "checkpoint" | "finetuned":
            return max(_trained_bytes(node, plan) for node in job.nodes)
        case "evaluation":
            return max(_evaluated_bytes(node, plan) for node in job.nodes)
        case "quantized":
            return max(_quantized_peak(nodes, plan).device for nodes in _by_model(job))
        case _:
            return 0


def _trained_bytes(node: Node, plan: Plan) -> int:
    """Return the bytes that a training computes with, wherever it does."""
    recipe: Trajectory | Finetuned
    if node.kind == "checkpoint":
        recipe = Trajectory.read(node.recipe["trajectory"])
        length = recipe.sequence_length
        batch = recipe.batch_tokens // length
    else:
        recipe, ref = Finetuned.read(node.recipe), node.parents["conversations"]
        length = Conversations.read(plan.known[ref.kind, ref.name].recipe).sequence_length
        batch = recipe.batch_examples
    sequences = min(batch, plan.study.execution.micro_batch_sequences or batch)
    model = _model_of(node, plan)
    taken = training_bytes(model, recipe.optimizer, recipe.precision, sequences * length)
    if not _on_host(plan):
        return taken
    shape = shape_of(model)
    return taken + sequences * length * shape.layers * _SCORES * shape.heads * length


def _classified_bytes(node: Node, plan: Plan) -> int:
    """Return the bytes that training a classifier computes with, wherever it does."""
    recipe = Classifier.read(node.recipe)
    return classifier_bytes(_counts_of(node, plan), recipe.optimizer, recipe.precision, recipe.batch_images)


def _counts_of(classifier: Node, plan: Plan) -> ImageCounts:
    ref = classifier.parents["images"]
    return count_classifier(classifier, plan.known[ref.kind, ref.name])


def _model_of(node: Node, plan: Plan) -> Model:
    """Return the model that a node trains or quantizes, or a guess at one that others trained."""
    trajectory = _trajectory_of(node, plan.known)
    return trajectory.model if trajectory else _guessed(plan.weights[node.kind, node.name])


def _guessed(weights: int) -> Model:
    """Return a Llama of about so many weights, in place of a model of which the plan knows no more."""
    heads = max(1, round(_WIDTH * weights ** (1 / 3) / _HEAD_WIDTH))
    width = heads * _HEAD_WIDTH
    sizes = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 8 * width // 3,
        "num_hidden_layers": max(1, round((weights - _VOCABULARY * width) / (12 * width**2))),
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": _QUESTION_TOKENS,
        "tie_word_embeddings": True,
    }
    return Model(architecture="llama", config=sizes)


def _node_bytes(node: Node, plan: Plan) -> int:
    if node.kind in ("checkpoint", "finetuned") and _on_host(plan):
        return _weight_bytes(node, plan) + _trained_bytes(node, plan)
    if node.kind == "classifier" and _on_host(plan):
        return _FLOAT32 * _counts_of(node, plan).parameters + _classified_bytes(node, plan)
    recipe = _trajectory_of(node, plan.known)
    if recipe is None:
        return _foreign_bytes(node, plan)
    weights = _weight_bytes(node, plan)
    match node.kind:
        case "checkpoint" | "finetuned":
            return 5 * weights
        case "evaluation" if _on_host(plan):
            return _evaluated_bytes(node, plan)
        case _:
            return 3 * weights


def _evaluated_bytes(node: Node, plan: Plan) -> int:
    """Return the bytes that an evaluation computes with, wherever it does."""
    measure, weights = Evaluation.read(node.recipe).measure, _weight_bytes(node, plan)
    recipe = _trajectory_of(node, plan.known)
    if recipe is None:
        scored = measure.batch_size * getattr(measure, "sequence_length", _QUESTION_TOKENS)
        return 2 * weights + _LOGIT_COPIES * _FLOAT32 * scored * _VOCABULARY
    shape = shape_of(recipe.model)
    scored = measure.batch_size * recipe.sequence_length
    kept = (1 + kept_vectors(measure)) * weights + _LOGIT_COPIES * _FLOAT32 * scored * shape.vocabulary
    twice = isinstance(measure, Curvature | Prediction)
    return kept + (_GRAPH_COPIES * scored * _layer_bytes(recipe) * shape.layers if twice else 0)


def _by_model(job: Job) -> list[list[Node]]:
    """Group quantizations by their models: those of one are made at once."""
    groups: dict[str, list[Node]] = {}
    for node in job.nodes:
        groups.setdefault(str(node.parents["model"]), []).append(node)
    return list(groups.values())


def _quantized_peak(nodes: list[Node], plan: Plan) -> Peak:
    quantizers = [Quantized.read(node.recipe) for node in nodes]
    return peak_bytes(sizes_of(_model_of(nodes[0], plan)), quantizers, _FLOAT32, not _on_host(plan))


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
            return _evaluated_bytes(node, plan)
        case _:
            return 3 * weights


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
