import json
import re
from pathlib import Path

import pytest
import yaml

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.stages import STAGES
from coolbits.study.plan import KINDS
from coolbits.study.workflow import Workflow, chosen_study


@pytest.fixture
def flow(tiny, tmp_path):
    """The workflow of a study given as plain values, the tiny one if none is."""

    def read(study=None):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study or tiny))
        return Workflow.read(tmp_path / "study.yaml", tmp_path / "results")

    return read


def tasks(flow):
    return [task for kind in KINDS for task in flow.tasks(kind)]


def test_each_node_is_the_output_of_one_task_and_each_input_is_an_output_of_another(flow):
    workflow = flow()
    outputs = [path for task in tasks(workflow) for path in task.output]
    assert len(outputs) == len(set(outputs)) == len(workflow.plan.nodes)
    for task in tasks(workflow):
        assert set(task.input) <= set(outputs) - set(task.output)
        assert len(task.input) == len(set(task.input))


def test_a_task_waits_for_all_parents_that_it_does_not_make(flow):
    for task in tasks(flow()):
        parents = {
            str(ref.directory(task.root) / "manifest.json") for node in task.job.nodes for ref in node.parents.values()
        }
        assert set(task.input) == parents - set(task.output)


def test_a_family_can_train_in_one_job(flow, tiny):
    def jobs(workflow):
        return [len(task.output) for task in workflow.tasks("checkpoint")]

    apart = jobs(flow())
    together = jobs(flow(tiny | {"execution": {"training_jobs": "family"}}))
    assert len(together) == 2 < len(apart)
    assert sum(together) == sum(apart)


def test_a_run_with_all_its_seeds_can_be_one_job(flow, tiny):
    tiny["defaults"]["seed"] = [0, 1]
    pooled = flow(tiny | {"execution": {"training_jobs": "run", "measuring_jobs": "run"}})
    assert [task.job.name for task in pooled.tasks("checkpoint")] == ["checkpoint-tiny-trunk", "checkpoint-tiny-wsd"]
    assert [task.job.name for task in pooled.tasks("quantized")] == ["quantized-tiny-trunk", "quantized-tiny-wsd"]
    for kind in KINDS:
        alone, together = (
            sorted(node.name for task in each.tasks(kind) for node in task.job.nodes) for each in (flow(tiny), pooled)
        )
        assert alone == together


def test_rule_names_are_words_and_unique(flow):
    names = [task.name for task in tasks(flow())]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]\w*", name) for name in names)


def test_what_makes_a_task_run_again_is_its_code_and_for_own_results_their_recipe(flow, tiny):
    def triggers(workflow):
        return {task.name: (task.code, task.identity) for task in tasks(workflow)}

    before = triggers(flow())
    after = triggers(flow(tiny | {"bootstrap_samples": 7}))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"table_tiny_metrics", "table_tiny_loss", "table_tiny_ledger", "figure_tiny_tokens"}
    codes = {kind: {task.code for task in flow().tasks(kind)} for kind in KINDS}
    assert codes["quantized"] == {code_slice(STAGES["quantized"]).digest[:16]}


def test_results_that_lie_where_a_changed_study_wants_its_own_are_older_than_their_records(flow, finish, tiny):
    made = flow(tiny | {"bootstrap_samples": 1000})
    finish(made.plan, *made.plan.nodes, root=made.root)
    outdated = {}
    for samples in (7, 1000):
        workflow = flow(tiny | {"bootstrap_samples": samples})
        workflow.settle()
        for task in tasks(workflow):
            record, manifest = (Path(task.output[0]).with_name(name) for name in ("record.json", "manifest.json"))
            if str(record) in task.input:
                outdated.setdefault(samples, set()).add(task.job.kind)
                assert record.stat().st_mtime_ns > manifest.stat().st_mtime_ns
    assert outdated == {7: {"table", "figure"}}


def test_threads_come_from_the_study(flow, tiny):
    workflow = flow(tiny | {"threads": {"data": 3, "training": 4, "measuring": 5}})
    threads = {task.job.kind: task.threads for task in tasks(workflow)}
    assert threads == dict.fromkeys(("corpus", "tokenizer", "shards", "calibration"), 3) | {
        "checkpoint": 4
    } | dict.fromkeys(("average", "quantized", "evaluation"), 5) | dict.fromkeys(("table", "figure"), 1)


def test_the_longest_task_has_the_highest_priority_and_enough_minutes(flow):
    for task in tasks(flow()):
        assert task.priority == round(task.seconds)
        assert task.resources["runtime"] * 60 >= task.seconds
        assert task.resources["mem_mb"] > 0


def test_only_what_computes_on_a_gpu_asks_for_one(flow, tiny):
    def gpus(device):
        workflow = flow(tiny | {"execution": {"device": device}})
        return {task.job.kind: task.resources.get("gpu") for task in tasks(workflow)}

    computing = {"checkpoint", "quantized", "evaluation"}
    asked = gpus("cuda")
    assert asked == {kind: 1 if kind in computing else None for kind in asked}
    for device in ("cpu", "auto"):
        assert set(gpus(device).values()) == {None}


def lengthen(study):
    """Let the trunk take an hour or so, with few checkpoints."""
    study["runs"]["trunk"] |= {"tokens": 128_000_000, "checkpoints": {"every": 64_000_000}}
    study["averages"] = {}


def test_no_task_asks_for_more_time_than_the_study_says(flow, tiny):
    def minutes(**execution):
        return {task.name: task.resources["runtime"] for task in tasks(flow(tiny | {"execution": execution}))}

    lengthen(tiny)
    free = minutes()
    assert max(free.values()) > 20 > 10 == min(free.values())
    assert minutes(longest_minutes=20) == {name: min(20, count) for name, count in free.items()}
    assert set(minutes(longest_minutes=7).values()) == {7}


def test_a_trajectory_with_checkpoints_asks_for_the_rest_of_its_time_and_for_all_of_it_to_make_them_again(flow, tiny):
    lengthen(tiny)
    workflow = flow(tiny)

    def longest():
        return max(workflow.tasks("checkpoint"), key=lambda task: len(task.job.nodes))

    whole = longest()
    *others, last = whole.job.nodes
    for nodes, seconds in (([last], 10.0), (others, whole.seconds)):
        for node in nodes:
            directory = node.directory(workflow.root)
            directory.mkdir(parents=True)
            (directory / "manifest.json").write_text("{}")
        assert longest().seconds == pytest.approx(seconds)


def test_a_study_is_one_file_and_takes_no_keys_from_the_command_line(tmp_path):
    assert chosen_study([], {}) == Path("config.yaml")
    assert chosen_study([tmp_path / "a.yaml"], {}) == tmp_path / "a.yaml"
    with pytest.raises(
        CoolbitsError, match=r"^--config: a study takes no keys .* \(tokens, x\); write them into the st"
    ):
        chosen_study([tmp_path / "a.yaml"], {"tokens": 1, "x": 2})
    with pytest.raises(CoolbitsError, match=r"^--configfile: a.yaml, b.yaml: a study is one file; call Snakemake once"):
        chosen_study([Path("a.yaml"), Path("b.yaml")], {})


def test_all_asks_for_pictures_and_pages_beside_manifests(flow, tiny, tmp_path):
    results = tmp_path / "results"
    assert flow(tiny | {"claims": "all"}).targets() == [
        f"{results}/{path}"
        for path in (
            "figure/tiny/tokens/manifest.json",
            "figure/tiny/tokens/tokens.svg",
            "figure/tiny/tokens/tokens.png",
            "claims/tiny/claims/manifest.json",
            "claims/tiny/claims/claims.html",
            "lineage/tiny/tokens.html",
            "settings/tiny.html",
        )
    ]


def test_pages_are_made_again_by_other_code_scripts_and_styles_and_of_other_settings(flow, tiny):
    modules = code_slice("coolbits.provenance.pages.lineage_page").modules
    assert {f"coolbits.provenance.pages.lineage_page:{name}" for name in ("page.css", "page.js")} <= set(modules)
    assert flow().page_code("lineage_page") != flow().page_code("settings")
    assert flow().identity != flow(tiny | {"threads": {"data": 3}}).identity


def test_no_other_study_and_no_change_of_one_writes_over_a_recipe_that_a_job_may_read_yet(flow, tiny):
    def change(**sections):
        """Start the study with other sections."""
        workflow = flow(tiny | sections)
        workflow.start()
        return tasks(workflow)

    quantizers = {"rtn-w2": {"method": {"kind": "rtn", "grid": {"bits": 2, "group_size": 16}}}}
    started = [*change(), *change(study="other", quantizers=quantizers), *change(quantizers=quantizers)]
    assert all(Job.read(task.recipe) == task.job for task in started)
    (tiny_log, other_log) = sorted({str(Path(task.log).parent) for task in started}, reverse=True)
    assert (Path(tiny_log).name, Path(other_log).name) == ("tiny", "other")


def test_the_start_of_a_run_writes_every_recipe_and_the_board(flow):
    workflow = flow()
    workflow.start()
    for task in tasks(workflow):
        assert Job.read(task.recipe) == task.job
    board = json.loads(workflow.board.path.read_text())
    assert set(board["jobs"]) == {task.job.name for task in tasks(workflow)}


def test_the_board_has_what_other_code_made_and_all_that_hangs_on_it(flow, finish):
    workflow = flow()

    def code(kind):
        return "other" if kind == "quantized" else code_slice(STAGES[kind]).digest

    finish(workflow.plan, *workflow.plan.nodes, root=workflow.root, code=code)
    workflow.start()
    board = json.loads(workflow.board.path.read_text())
    kinds = {name.partition("-")[0] for name in board["jobs"]}
    assert kinds == {"quantized", "evaluation", "table", "figure"}
    # Metrics of training hang on no quantizer.
    assert "table-tiny-metrics" not in board["jobs"]
