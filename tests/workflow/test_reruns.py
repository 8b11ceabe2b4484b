"""What runs again after a change, on the real Snakefile: dry runs say which jobs, real ones which artifacts."""

import json
import os
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from coolbits.artifacts.manifest import describe_files, read_manifest, read_record, write_manifest
from coolbits.study.execution import Execution, Threads

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

OWN = ["claims", "figure", "table", "table", "table"]
DATA = ["corpus", "shards", "tokenizer"]
QUANTIZED_AND_BELOW = ["claims", "evaluation", "figure", "quantized", "table", "table"]
EXECUTION = {
    "device": "cpu",
    "micro_batch_sequences": 2,
    "training_jobs": "family",
    "measuring_jobs": "run",
    "compile": True,
    "tokenizer_workers": 1,
    "state_every_seconds": 5.0,
    "longest_minutes": 30,
}
THREADS = {"data": 2, "training": 2, "measuring": 2}
RTN_2 = {"method": {"kind": "rtn", "grid": {"bits": 2, "group_size": 32}}}


def records(project):
    """Return the bytes of every artifact's manifest and record, by path."""
    return {
        path.relative_to(project.results): path.read_bytes()
        for path in project.results.rglob("*.json")
        if path.name in ("manifest.json", "record.json")
    }


def mark_metrics(checkpoint):
    """Put a loss that no training gives into a checkpoint's metrics, as if it had been made so."""
    frame = pd.read_parquet(checkpoint / "metrics.parquet")
    frame.loc[0, "loss"] = 123.0
    frame.to_parquet(checkpoint / "metrics.parquet", index=False)
    manifest = replace(read_manifest(checkpoint), files=describe_files(checkpoint))
    write_manifest(checkpoint, manifest, read_record(checkpoint))


def tokens_left(project, kinds):
    """Demand that `coolbits plan` has these kinds to make; return the tokens of all training and of what is left."""
    told = json.loads(project.run("coolbits.cli", "plan", "config.yaml", "--json").stdout)
    assert {node["kind"] for node in told["nodes"] if not node["exists"]} == set(kinds)
    return told["cost"]["tokens"], told["cost"]["tokens_left"]


def test_a_copy_with_new_times_has_nothing_to_do(project):
    assert "Nothing to be done" in project.snakemake()
    tokens, left = tokens_left(project, [])
    assert tokens > left == 0


def test_results_alone_copied_elsewhere_with_times_upside_down_have_nothing_to_do(project):
    shutil.rmtree(project.folder / ".snakemake")
    order = ["claims", "figure", "table", "evaluation", "quantized", "average", "checkpoint", "shards", "tokenizer"]
    for age, kind in enumerate([*order, "corpus"]):
        for path in (project.results / kind).rglob("*"):
            os.utime(path, (1e9 + age, 1e9 + age))
    assert project.kinds() == []


def test_results_copied_alone_are_not_taken_for_those_of_a_changed_study(project):
    shutil.rmtree(project.folder / ".snakemake")
    study = project.study()
    study["quantizers"]["gptq-w3"]["method"]["grid"]["bits"] = 4
    project.write_study(study)
    kinds, pages = project.kinds_and_pages()
    assert set(kinds) == set(QUANTIZED_AND_BELOW)
    assert pages == ["lineage", "settings"]
    assert set(project.kinds("results/claims/tiny/claims/manifest.json")) == set(QUANTIZED_AND_BELOW) - {"figure"}
    project.write_study(project.study())
    assert project.kinds_and_pages() == ([], [])


def test_pages_stay_when_everything_is_copied_and_come_back_when_lost(project):
    for age, path in enumerate(sorted(project.results.rglob("*.html"))):
        os.utime(path, (1e9 + age, 1e9 + age))
    assert project.kinds_and_pages() == ([], [])
    (project.results / "lineage" / "tiny" / "tokens.html").unlink()
    (project.results / "settings" / "tiny.html").unlink()
    assert project.kinds_and_pages() == ([], ["lineage", "settings"])


def test_the_page_of_settings_follows_the_study_and_that_of_lineage_the_figure(project):
    study = project.study()
    project.write_study(study | {"threads": {"measuring": 2}})
    assert project.kinds_and_pages() == ([], ["settings"])
    project.write_study(study | {"bootstrap_samples": 7})
    kinds, pages = project.kinds_and_pages()
    assert pages == ["lineage", "settings"]
    assert tokens_left(project, kinds)[1] == 0


def test_execution_settings_comments_docstrings_and_formatting_change_nothing(project):
    assert set(EXECUTION) == set(Execution.model_fields)
    assert set(THREADS) == set(Threads.model_fields)
    assert not EXECUTION.items() & Execution().identity().items()
    assert project.study()["threads"] | THREADS != project.study()["threads"]
    project.write_study(project.study() | {"execution": EXECUTION, "threads": THREADS})
    for path in (project.folder / "src").rglob("*.py"):
        text = path.read_text()
        path.write_text(text.replace('"""', '"""Said otherwise. ', 1) + "\n\n# a comment\n")
    assert project.kinds() == []


def test_code_of_quantization_runs_it_and_what_is_below_but_no_training(project):
    project.edit("src/coolbits/ptq/rtn.py", "import torch\n", "import torch\n\nNEW = 1\n")
    assert project.kinds() == QUANTIZED_AND_BELOW


def test_code_of_training_runs_trunks_branches_and_what_is_below_but_no_data(project):
    project.edit("src/coolbits/training/loop.py", "import torch\n", "import torch\n\nNEW = 1\n")
    kinds = project.kinds()
    assert kinds == sorted([*OWN, "average", "checkpoint", "checkpoint", "evaluation", "quantized"])
    tokens, left = tokens_left(project, kinds)
    assert tokens == left > 0


def test_a_new_quantizer_runs_quantization_and_what_is_below(project):
    study = project.study()
    study["quantizers"]["rtn-w2"] = RTN_2
    project.write_study(study)
    assert project.kinds() == QUANTIZED_AND_BELOW


def test_a_changed_quantizer_makes_its_own_artifacts_and_keeps_all_others(project):
    study = project.study()
    study["quantizers"]["rtn-w3"] = RTN_2
    project.write_study(study)
    before = records(project)
    wanted = next(node for node in project.plan().of_kind("evaluation") if "rtn-w2" in node.name)
    said = project.snakemake(f"results/evaluation/{wanted.name}/manifest.json")
    assert project.made_and_kept(said) == {"quantized": (5, 5), "evaluation": (5, 10)}
    assert before.items() < records(project).items()


def test_a_new_seed_runs_its_own_jobs_and_the_tables(project):
    study = project.study()
    study["defaults"]["seed"] = [0, 1]
    project.write_study(study)
    names = project.planned()
    shared = [name for name in names if "_tiny_" not in name]
    assert all("_s1_" in name for name in shared)
    assert [name.partition("_")[0] for name in shared] == [
        "average",
        "checkpoint",
        "checkpoint",
        "evaluation",
        "quantized",
    ]


def test_a_longer_trunk_goes_on_from_its_last_checkpoint_and_a_new_one_from_that_before(project):
    study = project.study()
    trunk = study["runs"]["trunk"]
    trunk["tokens"], trunk["checkpoints"]["at"] = 10240, [3840]
    project.write_study(study)
    assert not set(DATA) & set(project.kinds())

    (folder,) = {path.parent for path in project.results.glob("checkpoint/*constant*/step_*")}
    mark_metrics(folder / "step_0000030")
    before = records(project)
    said = project.snakemake(f"results/checkpoint/{folder.name}/step_0000040/manifest.json")
    assert project.made_and_kept(said) == {"checkpoint": (2, 3)}
    assert before.items() < records(project).items()
    metrics = pd.read_parquet(folder / "step_0000040" / "metrics.parquet")
    assert metrics["step"].tolist() == [5, 10, 15, 20, 25, 30, 35, 40]
    assert metrics["loss"][0] == 123.0
    assert pd.read_parquet(folder / "step_0000015" / "metrics.parquet")["loss"][0] < 10


@pytest.mark.parametrize("lost", ["tokens.png", "manifest.json"])
def test_a_deleted_figure_is_one_job(project, lost):
    (project.results / "figure" / "tiny" / "tokens" / lost).unlink()
    assert project.planned() == ["figure_tiny_tokens"]


def test_a_figure_and_a_checkpoint_can_be_asked_for_by_path(fresh):
    evaluated = ["average", "calibration", "checkpoint", "checkpoint", "evaluation", "quantized"]
    figure = [*DATA, *evaluated, "figure", "table"]
    assert fresh.kinds("results/figure/tiny/tokens/tokens.svg") == sorted(figure)
    trunk = fresh.plan().of_kind("checkpoint")[0]
    assert fresh.kinds(f"results/checkpoint/{trunk.name}/manifest.json") == sorted([*DATA, "checkpoint"])
