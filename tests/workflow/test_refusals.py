"""What Snakemake is not told: bad studies end it at once, and no name or path reaches a shell unquoted."""

import re
import shutil
from pathlib import Path

import pytest

from coolbits.study.plan import make_plan

RULES = sorted((Path(__file__).resolve().parents[2] / "workflow" / "rules").glob("*.smk"))
ODD = "a b'\"$(touch pwned);`touch pwned`&|*é\n"

workflow = pytest.mark.xdist_group("workflow")


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_rule_quotes_all_that_it_hands_to_a_shell(path):
    shells = re.findall(r"shell:\n((?: +\".*\"\n)+)", path.read_text())
    handed = [name for shell in shells for name in re.findall(r"{([^}]*)}", shell)]
    assert all(name == "threads" or name.endswith(":q") for name in handed), handed
    assert ("shell:" in path.read_text()) == bool(handed)


@workflow
@pytest.mark.slow
def test_a_bad_study_starts_no_job(fresh):
    fresh.write_study(fresh.study() | {"study": "../up"}, "bad.yaml")
    message = "study: '../up' is no name; use at most 60 lower-case letters, "
    before = sorted(fresh.folder.rglob("*"))
    for command in (("snakemake", "--cores", "1", "--configfile", "bad.yaml"), ("coolbits.cli", "plan", "bad.yaml")):
        done = fresh.run(*command)
        assert done.returncode == 2
        assert done.stdout == ""
        assert re.search(rf"^coolbits: .*bad\.yaml: {re.escape(message)}", done.stderr, re.MULTILINE), done.stderr
        assert "Traceback" not in done.stderr
    made = {path for path in fresh.folder.rglob("*") if path not in before and "__pycache__" not in path.parts}
    # Snakemake makes its own folder before it reads anything.
    assert {path.relative_to(fresh.folder).parts[0] for path in made} <= {".snakemake"}
    assert not list(fresh.folder.glob(".snakemake/locks/*"))


@workflow
@pytest.mark.slow
def test_no_path_reaches_a_shell_unquoted(fresh, tmp_path):
    odd = fresh.copy_to(tmp_path / ODD)
    study = odd.study()
    study["data"]["corpus"]["paths"] = [f"corpus {ODD}{{x}}.jsonl"]
    shutil.move(odd.folder / "corpus.jsonl", odd.folder / study["data"]["corpus"]["paths"][0])
    name = f"study {ODD}{{x}}.yaml"
    odd.write_study(study, name)
    (odd.folder / "config.yaml").unlink()
    (corpus,) = make_plan(odd.folder / name).of_kind("corpus")
    wanted = f"results/corpus/{corpus.name}/manifest.json"
    done = odd.run("snakemake", "--cores", "1", "--configfile", name, "--", wanted, "settings")
    assert done.returncode == 0, done.stderr
    assert list(odd.manifests()) == [f"corpus/{corpus.name}"]
    assert [path for path in tmp_path.rglob("*") if path.name.startswith("pwned")] == []


@workflow
@pytest.mark.slow
def test_braces_in_the_path_of_the_folder_are_refused(fresh, tmp_path):
    odd = fresh.copy_to(tmp_path / "{x}")
    done = odd.run("snakemake", "--cores", "1")
    assert done.returncode == 2
    assert done.stderr.endswith("{x}: braces in a path are placeholders to Snakemake; rename the folder\n")
    assert not odd.results.exists()


@workflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--config", "bootstrap_samples=7"),
            "--config: a study takes no keys from the command line (bootstrap_samples); write them into the study file",
        ),
        (
            ("--configfile", "config.yaml", "other.yaml"),
            "other.yaml: a study is one file; call Snakemake once for each",
        ),
    ],
)
def test_what_would_change_a_study_beside_its_file_is_refused(fresh, arguments, message):
    fresh.write_study(fresh.study(), "other.yaml")
    done = fresh.run("snakemake", "--cores", "1", "--dry-run", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("coolbits: --config") == 1
    assert message in done.stderr


@workflow
@pytest.mark.slow
def test_results_on_a_disk_that_is_not_there_are_not_made_again(fresh):
    fresh.results.symlink_to("unmounted")
    for command in (("snakemake", "--cores", "1"), ("coolbits.cli", "plan", "config.yaml")):
        done = fresh.run(*command)
        assert done.returncode == 2
        assert done.stderr.endswith("coolbits: results: a link that leads nowhere, not a results folder\n")
