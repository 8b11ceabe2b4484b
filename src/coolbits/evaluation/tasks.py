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
from lm_eval import evaluate
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.hub_tasks import hub_tasks, leaves
from coolbits.evaluation.local_tasks import local_rows, local_task, longest_continuation
from coolbits.evaluation.requests import Counting, context_length, demand_continuation_fits, room_for_question
from coolbits.evaluation.task_names import expand_tasks, needs_hub
from coolbits.study.recipes.evaluation import Tasks

_LOG = logging.getLogger(__name__)

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
        CoolbitsError: for shots for a task that has none to show, or as `local_rows` and `hub_tasks`.
    """
    names = expand_tasks(recipe.tasks)
    local = [name for name in names if not needs_hub(name)]
    if local and recipe.shots:
        raise CoolbitsError(f"evaluation, shots: found {recipe.shots}, but {', '.join(local)} can only be asked at 0")
    encoder = AutoTokenizer.from_pretrained(tokenizer)
    with _quiet():
        _seed(recipe.seed)
        rows = {name: local_rows(name, recipe, corpus, encoder) for name in local}
        own = {name: local_task(name, rows[name]) for name in local}
        asked = [name for name in names if needs_hub(name)]
        hub = hub_tasks(asked, recipe.shots)
    longest = {name: longest_continuation(rows[name], encoder) for name in local}
    below = {name: (name,) for name in local} | leaves(hub, asked)
    return Suite(recipe, encoder, hub | {"tasks": own | hub["tasks"]}, below, longest)


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
