"""The averaging stage: an average is a Hugging Face directory like the checkpoints it is made of."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from coolbits.artifacts.each import make_each
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.averaging.weights import CONFIG, GENERATION, average_weights, check_alike
from coolbits.models.tokenizer_files import copy_tokenizer
from coolbits.study.recipes.averaging import Average


def run(job: Job, store: Store) -> int:
    """Make the averages of the job that are missing; return how many were made.

    An average of which a member diverged has no weights and says so.

    Raises:
        CoolbitsError: as `build_average`.
    """
    return make_each(job, "averages", lambda node: store.ensure(node, partial(_build, node, store)))


def build_average(recipe: Average, members: Sequence[Path], out: Path) -> dict[str, Any]:
    """Average the Hugging Face directories `members`, oldest first, into `out`; return the summary.

    Configs, also of `generate`, and tokenizer are those of the first member.

    Raises:
        CoolbitsError: if there are not as many members as the recipe says, or they do not fit each other.
    """
    if len(members) != recipe.members:
        raise CoolbitsError(
            f"members: the recipe of this {recipe.kind} says {recipe.members}, {len(members)} are given"
        )
    check_alike(members)
    average_weights(members, recipe.shares(), out)
    for config in (CONFIG, GENERATION):
        if (members[0] / config).is_file():
            shutil.copyfile(members[0] / config, out / config)
    copy_tokenizer(members[0], out)
    return {"members": len(members)}


def _build(node: Node, store: Store, out: Path) -> dict[str, Any]:
    roles = sorted((role for role in node.parents if role.startswith("member.")), key=_number)
    for role in roles:
        parent = store.manifest(node, role)
        if parent.diverged:
            return {"outcome": "diverged", "diverged_step": parent.summary["diverged_step"]}
    return build_average(Average.read(node.recipe), [node.parent_directory(store.root, role) for role in roles], out)


def _number(role: str) -> int:
    return int(role.removeprefix("member."))
