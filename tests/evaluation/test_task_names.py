"""Names of tasks: sets are expanded, and reading them costs no heavy import."""

import subprocess
import sys

from coolbits.evaluation.task_names import BUILT, PACKAGED, TASK_SETS, expand_tasks, needs_hub


def test_sets_become_their_tasks_each_once():
    assert expand_tasks(("coolbits_choice", "embedded", "piqa")) == ("coolbits_choice", "coolbits_cloze", "piqa")


def test_the_papers_sets():
    assert len(TASK_SETS["paper-a"]) == len(set(TASK_SETS["paper-a"])) == 12
    assert len(TASK_SETS["paper-b"]) == len(set(TASK_SETS["paper-b"])) == 6
    assert all(map(needs_hub, (*TASK_SETS["paper-a"], *TASK_SETS["paper-b"])))
    assert not any(map(needs_hub, (*BUILT, *PACKAGED)))


def test_the_names_are_cheap_to_import():
    code = "import sys, coolbits.evaluation.task_names; print({'torch', 'lm_eval', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
