"""lm-eval's own tasks: groups and tags, shots without the answer, and what cannot be asked named in one sentence."""

import pandas as pd
import pytest
from lm_eval.tasks import TaskManager

from coolbits.artifacts.errors import CoolbitsError
from coolbits.evaluation import hub_tasks
from coolbits.evaluation.samples import write_results
from coolbits.evaluation.tasks import load_suite, score
from coolbits.study.recipes.evaluation import Tasks

TINY_TASK = """
custom_dataset: !function data.load
test_split: test
output_type: loglikelihood
doc_to_text: context
doc_to_target: target
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
TINY_DATA = """
from datasets import Dataset

def load(**_):
    return {"test": Dataset.from_list([{"context": "ba do", "target": " ki"}, {"context": "lu", "target": " me"}])}
"""


@pytest.fixture
def lm_eval_tasks(tmp_path, monkeypatch) -> None:
    """Let lm-eval know a group of two tasks, a tag of two, two that need more than text, and none of its own."""
    (tmp_path / "data.py").write_text(TINY_DATA)
    more = {
        "tag_a": "tag: tagged",
        "tag_b": "tag: tagged",
        "code": "unsafe_code: true",
        "seen": "doc_to_image: context",
    }
    for name in ("in_group_a", "in_group_b", *more):
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{more.get(name, '')}{TINY_TASK}")
    aggregate = "aggregate_metric_list: [{metric: acc, weight_by_size: true}]"
    (tmp_path / "group.yaml").write_text(f"group: grouped\ntask: [in_group_a, in_group_b]\n{aggregate}\n")
    monkeypatch.setattr(hub_tasks, "TaskManager", lambda: TaskManager(include_path=tmp_path, include_defaults=False))


@pytest.mark.usefixtures("lm_eval_tasks")
def test_groups_keep_their_name_and_tags_become_their_tasks(tokenizer, tiny_model, tmp_path):
    suite = load_suite(Tasks(tasks=("grouped", "tagged")), None, tokenizer)
    assert suite.leaves == {"grouped": ("in_group_a", "in_group_b"), "tag_a": ("tag_a",), "tag_b": ("tag_b",)}
    (tmp_path / "out").mkdir()
    summary = write_results(score(suite, tiny_model()), suite.leaves, tmp_path / "out")
    assert {*summary} == {"grouped", "tag_a", "tag_b", "requests"}
    assert {task: counts["made"] for task, counts in summary["requests"].items()} == {
        "grouped": 4,
        "tag_a": 2,
        "tag_b": 2,
    }
    samples = pd.read_parquet(tmp_path / "out" / "samples.parquet")
    assert samples["task"].value_counts().to_dict() == {"grouped": 4, "tag_a": 2, "tag_b": 2}
    assert summary["grouped"]["acc"] == samples.loc[samples["task"] == "grouped", "value"].mean()


@pytest.mark.usefixtures("lm_eval_tasks")
def test_a_task_asked_for_beside_its_group_has_scores_of_its_own(tokenizer, tiny_model, tmp_path):
    suite = load_suite(Tasks(tasks=("grouped", "in_group_a")), None, tokenizer)
    assert suite.leaves == {"grouped": ("in_group_a", "in_group_b"), "in_group_a": ("in_group_a",)}
    (tmp_path / "out").mkdir()
    assert {*write_results(score(suite, tiny_model()), suite.leaves, tmp_path / "out")} == {*suite.leaves, "requests"}


@pytest.mark.usefixtures("lm_eval_tasks")
def test_the_answer_to_a_question_is_never_among_its_shots(tokenizer, tiny_model):
    """Where a task has nothing else to show, shots are other questions that it asks."""
    samples = score(load_suite(Tasks(tasks=("tag_a",), shots=1), None, tokenizer), tiny_model())["samples"]["tag_a"]
    assert [sample["arguments"][0][0] for sample in samples] == ["lu  me\n\nba do", "ba do  ki\n\nlu"]


@pytest.mark.usefixtures("lm_eval_tasks")
def test_more_shots_than_a_task_has_are_refused(tokenizer):
    with pytest.raises(CoolbitsError, match=r"^evaluation, shots: found 2, but task tag_a has 1 to show$"):
        load_suite(Tasks(tasks=("tag_a",), shots=2), None, tokenizer)


@pytest.mark.usefixtures("lm_eval_tasks")
@pytest.mark.parametrize(("task", "why"), [("code", "it runs code that a model writes"), ("seen", "not of text alone")])
def test_a_task_that_needs_more_than_text_is_refused(tokenizer, task, why):
    with pytest.raises(CoolbitsError, match=f"^task {task}: .*{why}"):
        load_suite(Tasks(tasks=(task,)), None, tokenizer)


class Offline:
    """A task manager that knows two tasks and cannot reach the hub."""

    all_tasks = ("piqa", "sciq")

    def load(self, names):
        raise ConnectionError("Couldn't reach 'baber/piqa' on the Hub\nwith a second line")


def test_a_hub_out_of_reach_is_one_sentence(tokenizer, monkeypatch):
    monkeypatch.setattr(hub_tasks, "TaskManager", Offline)
    with pytest.raises(CoolbitsError, match=r"task piqa: .* hub, which is not reachable") as caught:
        load_suite(Tasks(tasks=("piqa",)), None, tokenizer)
    assert "\n" not in str(caught.value)


def test_an_unknown_task_is_named(tokenizer, monkeypatch):
    monkeypatch.setattr(hub_tasks, "TaskManager", Offline)
    with pytest.raises(CoolbitsError, match="tasks: found pika; known are coolbits_cloze"):
        load_suite(Tasks(tasks=("piqa", "pika")), None, tokenizer)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'langdetect'"), "No module named 'langdetect'"),
        (FileNotFoundError("Dataset 'gpqa' is gated.\nLog in."), "Dataset 'gpqa' is gated."),
        (RuntimeError("Dataset scripts are no longer supported"), "Dataset scripts are no longer supported"),
        (ValueError(), "ValueError"),
    ],
)
def test_what_lm_eval_cannot_load_is_one_sentence(tokenizer, monkeypatch, error, said):
    def load(self, names):
        raise error

    monkeypatch.setattr(Offline, "load", load)
    monkeypatch.setattr(hub_tasks, "TaskManager", Offline)
    with pytest.raises(CoolbitsError) as caught:
        load_suite(Tasks(tasks=("piqa",)), None, tokenizer)
    assert str(caught.value) == f"task piqa: lm-eval cannot load it ({said}); leave it out, or get what is missing"
