"""Environments made from the lock file: they have coolbits in them, and change when the lock file does."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from coolbits.artifacts.hashing import file_digest

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / "envs"


@pytest.fixture
def deployed(tmp_path: Path):
    """A function that runs the script behind the conda environment in a folder; it gives what it had pip do."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$PWD $*" >> {tmp_path}/asked\n')
    python.chmod(0o755)

    def run(folder: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        # Snakemake copies the script beside the environment, far from the repository.
        script = tmp_path / "copied.post-deploy.sh"
        script.write_text((ENVS / "coolbits.post-deploy.sh").read_text())
        done = subprocess.run(
            ["sh", script], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
        )
        asked = tmp_path / "asked"
        return done, asked.read_text().splitlines() if asked.exists() else []

    return run


def test_the_conda_environment_gets_the_lock_file_and_then_coolbits(deployed) -> None:
    done, asked = deployed(ROOT)
    assert done.returncode == 0
    installed = [line.partition(" -m pip install ")[2].split() for line in asked]
    assert [line.partition(" ")[0] for line in asked] == [str(ROOT)] * 2
    assert installed[0][-2:] == ["-r", "envs/coolbits.lock"]
    assert installed[1][-3:] == ["--no-deps", "--editable", "."]


def test_another_folder_than_the_repository_is_refused(deployed, tmp_path: Path) -> None:
    done, asked = deployed(tmp_path)
    assert done.returncode == 2 and asked == []
    assert "start Snakemake in the folder of the repository" in done.stderr


def test_the_conda_environment_names_no_other_file_and_the_lock_file_as_it_is() -> None:
    text = (ENVS / "coolbits.yaml").read_text()
    assert all(isinstance(entry, str) for entry in yaml.safe_load(text)["dependencies"])
    assert f"# coolbits.lock sha256 {file_digest(ENVS / 'coolbits.lock')}\n" in text


def test_a_container_has_a_compiler_and_copies_neither_environments_nor_results() -> None:
    container = (ENVS / "Containerfile").read_text()
    assert " g++ " in container and "pip install --no-cache-dir --no-deps -e ." in container
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".venv", ".snakemake", "results/*", "downloads"} <= {*ignored}


def test_the_lock_file_does_not_say_that_it_lists_what_it_does_not() -> None:
    header = [line for line in (ENVS / "coolbits.lock").read_text().splitlines() if line.startswith("#")]
    listed = (ENVS / "coolbits.lock").read_text().splitlines()[len(header) :]
    assert "nvidia" in " ".join(header) and not any(line.startswith("nvidia") for line in listed)
