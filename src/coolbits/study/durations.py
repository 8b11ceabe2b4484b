"""How long a job takes, by arithmetic: what a cluster is asked for, and how much time is left."""

from collections.abc import Collection
from pathlib import Path

from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.evaluation.task_names import expand_tasks
from coolbits.models.counts import flops_per_token
from coolbits.study.measure_cost import forward_tokens
from coolbits.study.plan import Plan
from coolbits.study.recipes.averaging import Average
from coolbits.study.recipes.calibration import CalibrationSet, Documents
from coolbits.study.recipes.data import Corpus, EmbeddedSource, HubSource, Source, TokenizerRecipe, TrainedTokenizer
from coolbits.study.recipes.evaluation import Evaluation, Tasks
from coolbits.study.recipes.finetuning import Conversations, Finetuned
from coolbits.study.recipes.methods import CALIBRATED
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.recipes.training import Cooldown, Trajectory
from coolbits.study.vision import pictures_to_decode, training_flops

# The kinds whose stages compute where `execution.device` says; all others have no use for an accelerator.
ON_DEVICE = ("checkpoint", "finetuned", "classifier", "quantized", "evaluation")

_START_SECONDS = {
    "corpus": 2.0,
    "pretrained": 20.0,
    "tokenizer": 4.0,
    "shards": 4.0,
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
# Bytes of text a second and core, measured on the embedded corpus; the network is seldom slower than the first.
_CORPUS_SPEED, _TRAINING_SPEED, _TOKENIZING_SPEED = 5e6, 2e6, 1e6
_EMBEDDED_BYTES, _DOCUMENT_BYTES, _TOKEN_BYTES = 26e6, 5e3, 4.5
_UNPACKED = {".gz": 4, ".xz": 4, ".zst": 4, ".parquet": 2}  # bytes of text in a byte of such a file
_UNKNOWN_BYTES = 150e9  # of a corpus that nobody has counted: gathering it may take a day
_DOCUMENT_SECONDS = _DOCUMENT_BYTES / _CORPUS_SPEED
_DOWNLOAD_SPEED, _DISK_SPEED = 2e7, 1.5e8  # bytes a second; an average is read, added up, hashed and written
_QUANTIZE_SECONDS = 0.7
_CALIBRATION_PASSES = 4  # what a calibrated method computes, in runs of the model over the tokens that it is shown
_TASK_SECONDS = 4.0
_TASK_QUESTIONS, _QUESTION_TOKENS = 2000, 200  # of a whole task; of a question with all of its choices, and of a shot
_SUBJECTS = {"mmlu": 57}  # tasks of 246 questions, and as many a limit allows each
_QUESTIONS = {"mmlu": 14_042, "hellaswag": 10_042}  # of tasks with far more
_PICTURE_SECONDS = 0.01
_CONVOLUTIONS_SLOWER = 2.0  # than matrix products, which the speeds above are of
_FLOAT32 = 4


def job_seconds(job: Job, plan: Plan, made: Collection[str] = ()) -> float:
    """Estimate the seconds that a job takes: to a factor of two, enough to say how much time is left.

    Tokenizing uses as many cores as `execution.tokenizer_workers`, all else is taken to use one, or the accelerator.
    `made` names the job's nodes that need not be made again.
    """
    nodes = [node for node in job.nodes if node.name not in made]
    seconds = _START_SECONDS.get(job.kind, 4.0)
    speed = _FLOPS_PER_SECOND[plan.study.execution.device]
    match job.kind:
        case "checkpoint":
            return seconds + _training_flops(job, made) / speed
        case "images":
            return seconds + sum(_PICTURE_SECONDS * pictures_to_decode(node) for node in nodes)
        case "classifier":
            return seconds + _CONVOLUTIONS_SLOWER * sum(classifier_flops(node, plan) for node in nodes) / speed
        case "finetuned":
            return seconds + sum(tuning_flops(node, plan) for node in nodes) / speed
        case "average":
            return seconds + sum(_average_bytes(node, plan) for node in nodes) / _DISK_SPEED
        case "quantized":
            read = sum(plan.weights[node.kind, node.name] * calibration_tokens(node) for node in nodes)
            return seconds + _QUANTIZE_SECONDS * len(nodes) + 2 * _CALIBRATION_PASSES * read / speed
        case "evaluation":
            return seconds + sum(_evaluation_seconds(node, plan.weights[node.kind, node.name], speed) for node in nodes)
        case _:
            return seconds + sum(_data_seconds(node, plan) for node in nodes)


def busy_cores(kind: str, plan: Plan) -> int:
    """Return the cores that a job of a kind keeps busy for those seconds."""
    return plan.study.execution.tokenizer_workers if kind == "shards" else 1


def asks_for_gpu(kind: str, plan: Plan) -> bool:
    """Whether jobs of a kind compute on a GPU that the study asks for; `auto` takes what is there and asks for none."""
    return plan.study.execution.device == "cuda" and kind in ON_DEVICE


def first_step(recipe: Trajectory) -> int:
    """Return the step at which a trajectory starts: a branch where it leaves its trunk."""
    return recipe.schedule.start_step if isinstance(recipe.schedule, Cooldown) else 0


def classifier_flops(node: Node, plan: Plan) -> float:
    """Estimate the floating-point operations of the training of a classifier."""
    ref = node.parents["images"]
    return training_flops(node, plan.known[ref.kind, ref.name])


def calibration_tokens(quantized: Node) -> int:
    """Return the tokens that a quantizer shows to its model; 0 where it looks at weights alone."""
    method = Quantized.read(quantized.recipe).method
    shown = method.calibration if isinstance(method, CALIBRATED) else None
    return shown.sequences * shown.sequence_length if shown else 0


def tuning_tokens(finetuned: Node, plan: Plan) -> int:
    """Return the tokens of a fine-tuning, conversations taken to fill half of their length."""
    recipe, ref = Finetuned.read(finetuned.recipe), finetuned.parents["conversations"]
    length = Conversations.read(plan.known[ref.kind, ref.name].recipe).sequence_length
    return recipe.steps * recipe.batch_examples * length // 2


def tuning_flops(finetuned: Node, plan: Plan) -> float:
    """Estimate the floating-point operations of a fine-tuning, a validation taken to cost a tenth of the training."""
    recipe = Finetuned.read(finetuned.recipe)
    validations = 1 + -(-recipe.steps // recipe.validate_steps)
    weights = plan.weights[finetuned.kind, finetuned.name]
    return 6 * weights * tuning_tokens(finetuned, plan) * (1 + validations / 10)


def _training_flops(job: Job, made: Collection[str]) -> float:
    """Add up the training from the newest checkpoint that is there to the last, for each trajectory of the job."""
    trajectories: dict[str, list[Node]] = {}
    for node in job.nodes:
        trajectories.setdefault(node.name.partition("/")[0], []).append(node)
    total = 0.0
    for nodes in trajectories.values():
        recipe = Trajectory.read(nodes[0].recipe["trajectory"])
        start = max([first_step(recipe), *(node.recipe["step"] for node in nodes if node.name in made)])
        tokens = (max(node.recipe["step"] for node in nodes) - start) * recipe.batch_tokens
        total += max(0, tokens) * flops_per_token(recipe.model, recipe.sequence_length)
    return total


def _data_seconds(node: Node, plan: Plan) -> float:
    """Estimate the seconds of what is made of text, or only fetched."""
    match node.kind:
        case "corpus":
            return text_bytes(node, plan) / _CORPUS_SPEED
        case "tokenizer":
            recipe = TokenizerRecipe.read(node.recipe).tokenizer
            if not isinstance(recipe, TrainedTokenizer):
                return 0.0
            return min(recipe.training_bytes, text_bytes(node, plan)) / _TRAINING_SPEED
        case "shards":
            return text_bytes(node, plan) / _TOKENIZING_SPEED / busy_cores(node.kind, plan)
        case "calibration":
            shown = CalibrationSet.read(node.recipe).calibration
            return _DOCUMENT_SECONDS * shown.sequences if isinstance(shown, Documents) else 0.0
        case "conversations":
            return _DOCUMENT_SECONDS * Conversations.read(node.recipe).source.examples
        case "pretrained":
            return _FLOAT32 * node.recipe["parameters"] / _DOWNLOAD_SPEED
        case _:
            return 0.0


def of_unknown_length(node: Node, plan: Plan) -> bool:
    """Whether a node is a corpus of which the study does not say the length, or its tokens."""
    if node.kind not in ("corpus", "shards"):
        return False
    source = _source_of(node, plan)
    return isinstance(source, HubSource) and source.documents is None


def text_bytes(node: Node, plan: Plan) -> float:
    """Estimate the text of a corpus, or of that behind a node.

    One of the hub that is taken whole is at least as long as the longest run.
    """
    match _source_of(node, plan):
        case EmbeddedSource():
            return _EMBEDDED_BYTES
        case HubSource(documents=int(documents)):
            return _DOCUMENT_BYTES * documents
        case HubSource():
            longest = max((track.steps[-1] * track.recipe.batch_tokens for track in plan.tracks), default=0)
            return max(_UNKNOWN_BYTES, _TOKEN_BYTES * longest)
        case _:
            files = [Path(path) for path in plan.locations.get("files", [])]
            return float(sum(_UNPACKED.get(path.suffix, 1) * path.stat().st_size for path in files if path.is_file()))


def _source_of(node: Node, plan: Plan) -> Source:
    """Return the source of a corpus, or of that behind a node."""
    ref = node.parents.get("corpus")
    corpus = plan.known[ref.kind, ref.name] if ref else node
    return Corpus.read(corpus.recipe).source


def _average_bytes(node: Node, plan: Plan) -> float:
    """Return the bytes that pass the disk: every member, and the average."""
    return float(_FLOAT32 * plan.weights[node.kind, node.name] * (Average.read(node.recipe).members + 1))


def _evaluation_seconds(node: Node, weights: int, speed: float) -> float:
    measure = Evaluation.read(node.recipe).measure
    if not isinstance(measure, Tasks):
        return 2 * weights * forward_tokens(measure) / speed
    tasks = expand_tasks(measure.tasks)
    read = sum(_questions(task, measure.limit) for task in tasks) * (1 + measure.shots) * _QUESTION_TOKENS
    return _TASK_SECONDS * len(tasks) + 2 * weights * read / speed


def _questions(task: str, limit: int | None) -> int:
    """Return the questions of a task, about; a limit holds for each of its subjects."""
    every = _QUESTIONS.get(task, _TASK_QUESTIONS)
    return every if limit is None else min(every, limit * _SUBJECTS.get(task, 1))
