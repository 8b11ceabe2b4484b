"""The command line: what each command prints, and one sentence with status 2 for what a person got wrong."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from coolbits import cli
from coolbits.artifacts import environment
from coolbits.artifacts.code import code_slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.stages import STAGES

REPOSITORY = Path(__file__).resolve().parents[1]
STUDY = REPOSITORY / "config.yaml"


@pytest.fixture(autouse=True)
def unchanged_environment(monkeypatch):
    """A stage command sets the threads of its process, which here is that of all tests."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused; return its one line on the error stream."""

    def run(*arguments):
        assert cli.main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = said.err.splitlines()
        return line

    return run


def recipe_file(folder, kind):
    node = make_node(kind, "name", {}, {})
    path = folder / "recipe.json"
    path.write_text(json.dumps(Job(kind, f"{kind}-name", (node,)).to_json()))
    return path


def test_plan_as_json_names_the_study_its_cost_and_its_nodes(tmp_path, capsys):
    assert cli.main(["plan", str(STUDY), "--results", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["study"] == yaml.safe_load(STUDY.read_text())["study"]
    assert report["cost"]["nodes"] == len(report["nodes"])
    assert report["cost"]["existing"] == 0
    assert 0 < report["cost"]["saved"] < 1


def test_plan_as_a_table_has_whole_names(tmp_path, capsys):
    cli.main(["plan", str(STUDY), "--results", str(tmp_path), "--json"])
    names = [node["name"] for node in json.loads(capsys.readouterr().out)["nodes"]]
    cli.main(["plan", str(STUDY), "--results", str(tmp_path)])
    printed = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1 : len(names) + 1]]
    assert printed == names


def test_schema_prints_the_schema_that_the_repository_keeps(capsys):
    assert cli.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == json.loads((REPOSITORY / "workflow" / "schemas" / "study.schema.json").read_text())


def test_accept_keeps_an_artifact_that_other_code_made(tmp_path, capsys):
    old = code_slice("coolbits.study.units")
    node = make_node("claims", "name", {}, {})
    Store(tmp_path, old).ensure(node, lambda _: {})
    now = Store(tmp_path, code_slice(STAGES["claims"]))
    assert not now.is_current(node)
    assert cli.main(["accept", str(node.directory(tmp_path)), "--why", "renamed a variable"]) == 0
    assert f"accepted under code {now.code.digest[:8]}" in capsys.readouterr().out
    assert now.is_current(node)
    assert json.loads((node.directory(tmp_path) / "accepted.json").read_text())["why"] == "renamed a variable"


def test_who_has_no_name_accepts_by_number(tmp_path, monkeypatch):
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    node = make_node("corpus", "english", {}, {})
    Store(tmp_path, code_slice(STAGES["corpus"])).ensure(node, lambda _: {})
    assert cli.main(["accept", str(node.directory(tmp_path)), "--why", "renamed a variable"]) == 0
    assert json.loads((node.directory(tmp_path) / "accepted.json").read_text())["who"] == str(os.getuid())


def test_accept_wants_a_reason(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["accept", str(tmp_path)])
    assert error.value.code == 2
    assert "--why" in capsys.readouterr().err


def test_accepting_what_is_no_artifact_is_refused(refused, tmp_path):
    assert refused("accept", tmp_path, "--why", "none") == (
        f"coolbits: {tmp_path}: a folder without manifest.json, so no artifact; those are the folders results/KIND/NAME"
    )


def test_a_recipe_of_another_kind_is_refused(refused, tmp_path):
    path = recipe_file(tmp_path, "corpus")
    assert refused("table", path, tmp_path) == (
        f"coolbits: {path}: a recipe of kind 'corpus', but the command is 'table'"
    )


def test_a_missing_recipe_file_is_refused(refused, tmp_path):
    path = tmp_path / "absent.json"
    assert refused("table", path, tmp_path) == f"coolbits: {path}: no such recipe file"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"nodes": 3}', '{"nodes": [{}]}'])
def test_a_file_that_is_no_recipe_is_refused(refused, tmp_path, content):
    path = tmp_path / "recipe.json"
    path.write_text(content)
    assert refused("table", path, tmp_path).startswith(f"coolbits: {path}: not a recipe file")


@pytest.mark.parametrize("command", [["plan"], ["plan", "--json"]])
def test_a_missing_study_is_refused(refused, tmp_path, command):
    path = tmp_path / "absent.yaml"
    assert refused(*command, path) == f"coolbits: {path}: no such study file"


def test_a_stage_says_how_many_artifacts_it_made_and_kept(tmp_path, capsys, monkeypatch):
    recipe = recipe_file(tmp_path, "claims")
    done = iter([1, 0])
    monkeypatch.setattr("coolbits.claims.stage.run", lambda job, store: next(done))
    for said in ("claims-name: 1 made, 0 kept\n", "claims-name: 0 made, 1 kept\n"):
        assert cli.main(["claims", str(recipe), str(tmp_path / "results")]) == 0
        assert capsys.readouterr().out == said


def test_help_lists_every_stage(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["--help"])
    assert error.value.code == 0
    listed = capsys.readouterr().out
    assert all(f"make the {kind} artifacts" in listed for kind in STAGES)


def test_an_interrupt_while_modules_are_imported_ends_as_shells_know_it_after_one_line(tmp_path):
    """By the signal itself: a loop of a shell that calls the command ends with it."""
    (tmp_path / "torch.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    command = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command += "from coolbits import cli; sys.exit(cli.main())"
    arguments = ["quantize", "--model", "model", "--recipe", "rtn-w4", "--out", "out"]
    ended = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == "coolbits: interrupted; what is finished stays: run again to go on\n"


@pytest.fixture
def forgotten():
    """Nothing is known of the environment, as in a new process."""
    known = (environment.capture_environment, environment.git_state)
    for function in known:
        function.cache_clear()
    yield
    for function in known:
        function.cache_clear()


def test_a_record_names_the_commit_that_a_job_began_under_whatever_is_committed_meanwhile(
    tmp_path, monkeypatch, forgotten
):
    commits = ["a" * 40, "b" * 40]

    def git(command, **_):
        return subprocess.CompletedProcess(command, 0, commits[0] if "rev-parse" in command else "")

    def work(job, store):
        del commits[0]
        return store.ensure(job.nodes[0], lambda _directory: {})

    monkeypatch.setattr(subprocess, "run", git)
    monkeypatch.setattr("coolbits.claims.stage.run", work)
    assert cli.main(["claims", str(recipe_file(tmp_path, "claims")), str(tmp_path / "results")]) == 0
    (record,) = (tmp_path / "results").rglob("record.json")
    assert json.loads(record.read_text())["environment"]["git"]["commit"] == "a" * 40


def test_a_stage_that_is_terminated_says_so_in_one_line_and_leaves_nothing_half_written(tmp_path):
    """A cluster that takes a job's node back, or whose time is up, sends SIGTERM; again and again, if it preempts."""
    work = """
import signal, sys
from coolbits import cli
from coolbits.artifacts.files import replacing
from coolbits.claims import stage

def run(job, store):
    with replacing(store.directory(job.nodes[0])) as directory:
        (directory / "half").write_text("of it")
        signal.raise_signal(signal.SIGTERM)

stage.run = run
sys.exit(cli.main())
"""
    results = tmp_path / "results"
    command = [sys.executable, "-c", work, "claims", str(recipe_file(tmp_path, "claims")), str(results)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert [path for path in results.rglob("*") if path.is_file()] == []
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr == "coolbits: stopped by SIGTERM; what is finished stays: run again to go on\n"


def test_memory_that_does_not_suffice_is_told_in_one_line(refused, monkeypatch):
    def too_much():
        raise MemoryError("Unable to allocate 349. TiB")

    monkeypatch.setattr("coolbits.study.load.study_json_schema", too_much)
    assert refused("schema") == "coolbits: not enough memory (Unable to allocate 349. TiB); what is finished stays"


@pytest.mark.parametrize(
    ("place", "status", "said"),
    [
        ("full disk", 2, "coolbits: No space left on device; what is finished stays: run again once that is mended\n"),
        ("closed pipe", 0, ""),
    ],
)
def test_output_that_nobody_takes_is_no_mistake_of_the_program(tmp_path, place, status, said):
    """Not even if it waits in memory until the end."""
    reader, writer = os.pipe()
    os.close(reader)
    command = "import sys; from coolbits import cli; cli._plan = lambda _: print('short'); sys.exit(cli.main())"
    with Path("/dev/full").open("w") if place == "full disk" else os.fdopen(writer, "w") as output:
        ended = subprocess.run(
            [sys.executable, "-c", command, "plan", "study.yaml"],
            env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (ended.returncode, ended.stderr) == (status, said)


def test_names_that_the_locale_has_no_letters_for_are_printed_all_the_same(tmp_path, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["settings", str(STUDY), "--out", str(tmp_path / "café.html")]) == 0
    assert out.buffer.getvalue().endswith(b"caf\\xe9.html\n")
