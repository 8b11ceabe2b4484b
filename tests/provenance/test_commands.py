"""The commands: what they print, and their status: 0 clean, 1 findings, 2 one sentence on what is wrong."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from coolbits import cli
from coolbits.loops.locks import alone_in

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(capsys):
    """Run a command; return its status, what it printed and what it complained about."""

    def call(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_a_clean_audit_has_status_0_and_counts_what_it_saw(run, lab):
    status, said, _ = run("audit", lab.one("figure"))
    assert (status, said) == (0, "clean: 9 artifacts, 0 MB\n")


def test_findings_have_status_1_and_a_line_each(run, lab):
    (lab.one("table") / "table.parquet").unlink()
    (lab.one("shards") / "extra").write_text("x")
    status, said, _ = run("audit", lab.root, "--quick")
    assert status == 1
    *lines, last = said.splitlines()
    assert {line.split()[0] for line in lines} == {"missing", "undeclared"}
    assert last == "2 findings: 10 artifacts, 0 MB, sizes only"


@pytest.mark.parametrize("place", ["checkpoint", "figure/tiny", "table/tiny/loss"])
def test_an_audit_sees_what_lies_on_another_disk(run, lab, move_away, place):
    move_away(place)
    assert run("audit", lab.root / place)[0] == 0
    assert run("audit", lab.root)[:2] == (0, "clean: 10 artifacts, 0 MB\n")
    (lab.root / "table/tiny/loss/table.parquet").unlink()
    (lab.root / "figure/tiny/tokens/tokens.svg").unlink()
    _, said, _ = run("audit", lab.root)
    assert {line.split()[1] for line in said.splitlines()[:-1]} == {
        "table/tiny/loss/table.parquet:",
        "figure/tiny/tokens/tokens.svg:",
    }


def test_notes_alone_are_clean(run, lab):
    lab.rewrite(lab.one("shards") / "record.json", lambda record: record["environment"].update(git=None))
    status, said, _ = run("audit", lab.one("figure"))
    assert status == 0
    assert said.splitlines()[0].startswith("note ")


def test_an_audit_as_json_is_only_json(run, lab):
    (lab.one("table") / "table.parquet").unlink()
    status, said, _ = run("audit", lab.one("figure"), "--json")
    report = json.loads(said)
    assert (status, report["artifacts"]) == (1, 9)
    assert report["findings"] == [
        {
            "what": "missing",
            "where": ["table/tiny/loss/table.parquet"],
            "said": "no such file, but it was recorded",
            "information": False,
        }
    ]


def test_a_figure_file_in_a_paper_is_audited_in_the_results_that_are_named(run, lab, tmp_path):
    copy = shutil.copy(lab.one("figure") / "tokens.png", tmp_path / "paper.png")
    status, said, _ = run("audit", copy, "--results", lab.root)
    assert status == 0
    assert said.splitlines()[-1] == "clean: 9 artifacts, 0 MB"


def test_explain_and_diff_take_a_figure_file_too(run, lab, tmp_path):
    copy = shutil.copy(lab.one("figure") / "tokens.png", tmp_path / "paper.png")
    status, said, _ = run("explain", copy, "--results", lab.root)
    assert (status, said.splitlines()[0]) == (0, "figure/tiny/tokens")
    status, said, _ = run("diff", copy, lab.one("figure"), "--results", lab.root)
    assert (status, said.splitlines()[2]) == (0, "equal in content, and made alike")


@pytest.mark.parametrize("command", ["explain", "diff", "lineage"])
def test_what_looks_behind_an_edited_figure_file_says_that_it_was_edited(run, lab, tmp_path, command):
    figure, copy = lab.one("figure"), tmp_path / "paper.svg"
    copy.write_text((figure / "tokens.svg").read_text().replace("</svg>", "<!-- edited --></svg>"))
    rest = {"diff": [figure], "lineage": ["--out", tmp_path / "pages"]}.get(command, [])
    status, _, complained = run(command, copy, *rest, "--results", lab.root)
    assert (status, complained) == (
        0,
        f"changed     {copy}: says that it is figure/tiny/tokens, but its bytes are not: it was edited, or saved by "
        "another program\n",
    )
    assert run(command, figure, *rest, "--results", lab.root)[2] == ""


@pytest.mark.parametrize("command", ["explain", "diff"])
def test_pages_come_as_json_too(run, lab, command):
    targets = [lab.one("figure")] * (2 if command == "diff" else 1)
    status, said, _ = run(command, *targets, "--json")
    assert status == 0
    assert json.loads(said)


def test_different_kinds_are_not_compared(run, lab):
    one, two = lab.one("figure"), lab.one("table")
    assert run("diff", one, two) == (2, "", f"coolbits: {two}: of kind 'table', but {one} is of kind 'figure'\n")


@pytest.mark.parametrize("command", ["audit", "explain"])
def test_what_is_not_there_is_refused(run, tmp_path, command):
    path = tmp_path / "absent"
    assert run(command, path) == (2, "", f"coolbits: {path}: no such file or folder\n")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Where no Snakemake runs, whatever happens in the repository."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def study_file(folder, name):
    """The study of the repository under another name."""
    path = folder / f"{name}.yaml"
    path.write_text((REPOSITORY / "config.yaml").read_text().replace("study: micro", f"study: {name}"))
    return path


def test_gc_lists_and_then_removes(run, lab, tmp_path):
    study = study_file(tmp_path, "another")
    shutil.rmtree(lab.root / "figure")
    shutil.rmtree(lab.root / "table")
    status, listed, _ = run("gc", study, "--results", lab.root)
    assert status == 0
    assert listed.splitlines()[-1].startswith("can go with --yes: ")
    assert listed.splitlines()[-1].endswith("B, 8 folders")
    assert lab.one("quantized").exists()
    status, removed, _ = run("gc", study, "--results", lab.root, "--yes")
    assert status == 0
    assert removed.splitlines()[:-1] == listed.splitlines()[:-1]
    assert removed.splitlines()[-1] == listed.splitlines()[-1].replace("can go with --yes", "freed")
    assert not list(lab.root.rglob("manifest.json"))


def test_gc_says_what_may_be_another_machines_work(run, lab, tmp_path):
    work = lab.root / "evaluation" / ".loss.0123abcd.new"
    work.mkdir()
    status, said, _ = run("gc", study_file(tmp_path, "another"), "--results", lab.root, "--yes")
    assert status == 0
    assert f"{work}: stays, a job may be at work in it: written to in the last 24 hours" in said
    assert work.exists()


def test_gc_says_what_stays_and_why(run, lab, tmp_path):
    (lab.root / "work" / "boards").mkdir(parents=True)
    (lab.root / "work" / "boards" / "tiny.json").write_text("{}")
    status, said, _ = run("gc", study_file(tmp_path, "another"), "--results", lab.root)
    assert status == 0
    assert "9 artifacts that no given study wants stay: results that are there need them" in said
    assert "not given: tiny; of these studies only results and what is behind them stay" in said


def test_gc_removes_nothing_while_a_training_holds_its_lock(run, lab, tmp_path):
    study, folder = study_file(tmp_path, "another"), lab.root / "work" / "checkpoint" / "track"
    shutil.rmtree(lab.root / "figure")
    before = sorted(lab.root.rglob("*"))
    with alone_in(folder):
        status, said, complaint = run("gc", study, "--results", lab.root, "--yes")
        assert (status, said) == (2, "")
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        assert complaint == f"coolbits: {folder}/lock: {holder} works here now; wait for it, or stop it\n"
        assert set(before) <= set(lab.root.rglob("*"))
    status, said, _ = run("gc", study, "--results", lab.root, "--yes")
    assert status == 0
    assert str(folder) in said


def test_gc_refuses_a_folder_that_is_none(run, tmp_path):
    study, folder = study_file(tmp_path, "tiny"), tmp_path / "absent"
    assert run("gc", study, "--results", folder) == (
        *(2, ""),
        f"coolbits: {folder}: no results folder; say with --results where it is\n",
    )
