"""Names of tasks: sets are expanded, and reading them costs no heavy import."""

import subprocess
import sys

import pytest

from coolbits.evaluation import task_names
from coolbits.evaluation.task_names import BUILT, PACKAGED, TASK_SETS, expand_tasks, needs_hub, unknown_tasks


def test_sets_become_their_tasks_each_once():
    assert expand_tasks(("coolbits_choice", "embedded", "piqa")) == ("coolbits_choice", "coolbits_cloze", "piqa")


def test_the_papers_sets():
    assert len(TASK_SETS["paper-a"]) == len(set(TASK_SETS["paper-a"])) == 11
    assert len(TASK_SETS["paper-b"]) == len(set(TASK_SETS["paper-b"])) == 6
    assert all(map(needs_hub, (*TASK_SETS["paper-a"], *TASK_SETS["paper-b"])))
    assert not any(map(needs_hub, (*BUILT, *PACKAGED)))


def test_what_neither_a_set_nor_lm_eval_has_is_unknown():
    # A group, a tag that stands in an included file alone, and a task.
    assert unknown_tasks(("embedded", "mmlu", "bertaqa", "gpqa", "lambada_standard")) == []
    assert unknown_tasks(("paper-a", "mmlu_", "lambada")) == ["mmlu_"]  # "lambada" is a tag


def test_names_that_sets_have_are_not_looked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_names, "_definitions", lambda: pytest.fail("lm-eval's files were read"))
    assert unknown_tasks(("olmo", "arc_easy", *BUILT)) == []


def test_without_lm_eval_no_name_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_names, "find_spec", lambda _: None)
    assert unknown_tasks(("anything",)) == []


def test_the_names_are_cheap_to_import():
    code = "import sys, coolbits.evaluation.task_names; print({'torch', 'lm_eval', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
