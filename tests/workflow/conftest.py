"""A copy of the project with a tiny study: run once, then each test gets a copy of its own that it may spoil."""

import copy
import fcntl
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from coolbits.study.plan import Plan, make_plan

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = "src/coolbits/data/english.jsonl.xz"
PAGES = ("lineage", "settings")
PARTS = ("Snakefile", "workflow", "profiles", "envs", "src/coolbits")

STUDY: dict[str, Any] = {
    "study": "tiny",
    "data": {
        "corpus": {"kind": "files", "paths": ["corpus.jsonl"]},
        "tokenizer": {"kind": "bpe", "vocabulary_size": 300},
        "validation_fraction": 0.2,
    },
    "defaults": {
        "model": {
            "preset": "micro-neox",
            "config": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        },
        "sequence_length": 32,
        "batch_tokens": 256,
        "optimizer": {"kind": "adamw"},
        "peak_lr": 0.01,
        "seed": 0,
        "log": 1280,
    },
    "runs": {
        "trunk": {
            "schedule": {"kind": "constant", "warmup": 1280},
            "tokens": 7680,
            "checkpoints": {"every": 2560},
            "cooldowns": {"at": 5120, "length": 1280},
        }
    },
    "averages": {"lawa": {"kind": "lawa", "run": "trunk", "window": 2, "every": 2560}},
    "quantizers": {
        "rtn-w3": {"method": {"kind": "rtn", "grid": {"bits": 3, "group_size": 32}}},
        "gptq-w3": {
            "method": {
                "kind": "gptq",
                "grid": {"bits": 3, "group_size": 32},
                "sequential": "none",
                "calibration": {"sequences": 16, "sequence_length": 32},
            }
        },
    },
    "evaluations": {"loss": {"measure": {"kind": "loss", "windows": 32, "sequence_length": 32}}},
    "figures": {"tokens": {"figure": "tokens"}},
    "claims": "all",
    "bootstrap_samples": 20,
    "threads": {"data": 1},
}


@dataclass(frozen=True)
class Project:
    """A folder with Snakefile, rules, code, study and results, and the two commands run in it."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def study(self) -> dict[str, Any]:
        return copy.deepcopy(STUDY)

    def write_study(self, study: dict[str, Any], name: str = "config.yaml") -> None:
        (self.folder / name).write_text(yaml.safe_dump(study, sort_keys=False))

    def plan(self) -> Plan:
        return make_plan(self.folder / "config.yaml")

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def copy_to(self, folder: Path) -> "Project":
        """Copy everything, file after file in no good order, so that modification times mean nothing."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=shutil.copyfile)
        return Project(folder)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a command run with the folder's own code, whatever coolbits is installed."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SNAKEMAKE", "PYTEST"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return kept | {"PATH": path, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command as the first of a group of processes; what it says is added to `said.txt`."""
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder,
                env=self.environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def snakemake(self, *arguments: str) -> str:
        """Run Snakemake, which must succeed; return all it said."""
        done = self.run("snakemake", "--cores", "2", *arguments)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        return output

    def planned(self, *arguments: str) -> list[str]:
        """Return the names of the rules that a dry run would run to make artifacts, sorted."""
        return [name for name in self._rules(*arguments) if name not in PAGES]

    def kinds(self, *arguments: str) -> list[str]:
        """Return the kinds of artifacts that a dry run would make, one for each job, sorted."""
        return self.kinds_and_pages(*arguments)[0]

    def kinds_and_pages(self, *arguments: str) -> tuple[list[str], list[str]]:
        """Return the kinds, and the names of the rules that it would run to make pages about artifacts."""
        rules = self._rules(*arguments)
        kinds = [name.partition("_")[0] for name in rules if name not in PAGES]
        return kinds, [name for name in rules if name in PAGES]

    def _rules(self, *arguments: str) -> list[str]:
        table = self.snakemake("--dry-run", *arguments).partition("Job stats:")[2].partition("\ntotal ")[0]
        names = [name for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE) for _ in range(int(count))]
        return sorted(name for name in names if name != "all")

    def manifests(self, pattern: str = "**") -> dict[str, Path]:
        """Return the manifests below the results folder, by kind and name."""
        found = sorted(self.results.glob(f"{pattern}/manifest.json"))
        return {path.parent.relative_to(self.results).as_posix(): path for path in found}

    def made_and_kept(self, output: str) -> dict[str, tuple[int, int]]:
        """Read from what jobs said how many artifacts each kind has `(made, kept)`."""
        found: dict[str, tuple[int, int]] = {}
        for kind, made, kept in re.findall(r"^(\w+)-.*: (\d+) made, (\d+) kept$", output, re.MULTILINE):
            before = found.get(kind, (0, 0))
            found[kind] = (before[0] + int(made), before[1] + int(kept))
        return found


def write_corpus(path: Path, documents: int = 60, characters: int = 2000) -> None:
    """Write the first documents of the embedded corpus, shortened."""
    with lzma.open(REPOSITORY / CORPUS, "rt", encoding="utf-8") as lines, path.open("w") as out:
        for _, line in zip(range(documents), lines, strict=False):
            out.write(json.dumps({"text": json.loads(line)["text"][:characters]}) + "\n")


def new_project(folder: Path) -> Project:
    """Copy the project, without results, into the new folder `folder`; the study is the tiny one."""
    ignore = shutil.ignore_patterns("__pycache__", Path(CORPUS).name)
    for part in PARTS:
        source, target = REPOSITORY / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, target, follow_symlinks=False)
    write_corpus(folder / "corpus.jsonl")
    project = Project(folder)
    project.write_study(STUDY)
    return project


@pytest.fixture
def fresh(tmp_path):
    """A project in which nothing was made yet."""
    return new_project(tmp_path / "fresh")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """The project after one whole run, made once for all workers of a test run; never to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder, log = shared / "finished", shared / "finished.log"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            done = new_project(folder).run("snakemake", "--cores", "2")
            log.write_text(done.stdout + done.stderr)
    assert "(100%) done" in log.read_text(), log.read_text()
    return Project(folder)


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project that a test may change."""
    return finished.copy_to(tmp_path / "project")
