"""The script behind `make results`, with stand-ins for the commands that it calls."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = Path("workflow/scripts/results.sh")
COOLBITS = 'echo \'{"study": "tiny"}\''
# Writes a report in place, as Snakemake does, and stops halfway where a file `fails` says so.
SNAKEMAKE = """case "$*" in
*--report*)
    echo half > "${@: -1}"
    [ ! -e fails ] || exit 1
    echo whole >> "${@: -1}";;
*) mkdir -p results/figure/tiny/tokens && [ -e results/figure/tiny/tokens/manifest.json ] ||
    echo '{}' > results/figure/tiny/tokens/manifest.json;;
esac"""


@pytest.fixture
def results(tmp_path):
    """Run the script for a study file, in a folder of its own."""
    folder, commands = tmp_path / "project", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    scripts = {"coolbits": COOLBITS, "snakemake": SNAKEMAKE, "python": f'exec "{sys.executable}" "$@"'}
    for name, script in scripts.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (commands / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}

    def run(study="config.yaml"):
        command = [REPOSITORY / SCRIPT, study]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    run.folder = folder
    return run


def reports(folder):
    return sorted(path.name for path in (folder / "results").iterdir() if path.is_file())


@pytest.mark.parametrize(("study", "report"), [("config.yaml", "report.html"), ("my study.yaml", "report-tiny.html")])
def test_a_report_is_written_once(results, study, report):
    assert results(study).returncode == 0
    assert (results.folder / "results" / report).read_text() == "half\nwhole\n"
    assert results(study).stdout == f"results/{report} is up to date\n"
    assert reports(results.folder) == [report]


def test_a_report_that_was_stopped_halfway_is_written_again(results):
    (results.folder / "fails").touch()
    assert results().returncode != 0
    assert reports(results.folder) == []
    (results.folder / "fails").unlink()
    assert results().stdout == ""
    assert (results.folder / "results" / "report.html").read_text() == "half\nwhole\n"


def test_a_report_that_cannot_be_renewed_stays_whole(results):
    results()
    (results.folder / "fails").touch()
    manifest = results.folder / "results/figure/tiny/tokens/manifest.json"
    newer = (results.folder / "results" / "report.html").stat().st_mtime + 1
    os.utime(manifest, (newer, newer))
    for _ in range(2):
        assert results().returncode != 0
        assert reports(results.folder) == ["report.html"]
    assert (results.folder / "results" / "report.html").read_text() == "half\nwhole\n"


def test_make_hands_on_the_path_of_a_study_as_it_is(tmp_path):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in (".venv/bin/activate", ".venv/.ready", "envs/coolbits.lock", "envs/make_venv.sh", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    (tmp_path / SCRIPT).write_text('#!/usr/bin/env bash\nprintf "[%s]" "$@"\n')
    (tmp_path / SCRIPT).chmod(0o755)
    (tmp_path / ".venv/.ready").touch()

    def said(*arguments):
        command = ["make", "--no-print-directory", "results", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    assert said() == "[config.yaml]"
    assert said('STUDY=my studies/it\'s "a".yaml') == '[my studies/it\'s "a".yaml]'
