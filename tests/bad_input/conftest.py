"""What every refusal has in common: one line on the error stream, status 2, and a folder in which nothing changed."""

import copy
import json
import pickle
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import yaml

from coolbits import cli
from coolbits.artifacts.files import write_json
from coolbits.artifacts.manifest import RECORD, describe_files, read_manifest, write_manifest
from coolbits.artifacts.node import Node
from coolbits.study.plan import KINDS, make_plan

Refused = Callable[..., None]

# Of every message a table holds all that matters to its reader; `...` stands for what depends on the machine.
ANYTHING = "..."

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
            "config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
        },
        "sequence_length": 16,
        "batch_tokens": 64,
        "optimizer": "AdamW-32",
        "peak_lr": 0.01,
    },
    "runs": {
        "trunk": {
            "schedule": {"kind": "constant", "warmup": 128},
            "tokens": 640,
            "checkpoints": {"every": 320},
            "cooldowns": {"at": 320, "length": 128},
        },
        "wsd": {"schedule": {"kind": "wsd", "warmup": 128, "decay": "25%"}, "tokens": 640, "peak_lr": [0.01, 0.03]},
    },
    "averages": {"lawa": {"kind": "lawa", "run": "trunk", "window": 2, "every": 320}},
    "quantizers": {
        "rtn-w3": {"method": {"kind": "rtn", "grid": {"bits": 3, "group_size": 16}}},
        "gptq-w4": {
            "method": {
                "kind": "gptq",
                "grid": {"bits": 4, "group_size": 16},
                "calibration": {"sequences": 16, "sequence_length": 16},
            }
        },
    },
    "evaluations": {"loss": {"measure": {"kind": "loss", "windows": 4, "sequence_length": 16}}},
    "figures": {"tokens": {"figure": "tokens"}},
    "execution": {"device": "cpu", "tokenizer_workers": 1},
}


def study_with(key: str, value: Any) -> str:
    """Return the text of the study with another value at a dotted key."""
    study = copy.deepcopy(STUDY)
    place = study
    *above, last = key.split(".")
    for part in above:
        place = place.setdefault(part, {})
    place[last] = value
    return yaml.safe_dump(study, sort_keys=False, allow_unicode=True)


def write_corpus(path: Path) -> None:
    """Write sixty documents of words that a vocabulary of 300 covers."""
    drawn = random.Random(0)
    words = ["".join(drawn.choices("abcdefgh", k=drawn.randint(2, 6))) for _ in range(200)]
    documents = (json.dumps({"text": " ".join(drawn.choices(words, k=120))}) for _ in range(60))
    path.write_text("".join(f"{document}\n" for document in documents))


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return everything below a folder with its times and sizes."""
    states = {path.relative_to(folder).as_posix(): path.lstat() for path in [folder, *folder.rglob("*")]}
    return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}


class _Pwns:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("pwned", "w")


@dataclass(frozen=True)
class Folder:
    """A folder with the study, its results up to the quantized models, and the recipe files of its jobs."""

    path: Path

    def recipe(self, job: str) -> Path:
        """Return the recipe file of a job, named by its kind and number: `checkpoint-1`."""
        return self.path / "recipes" / f"{job}.json"

    def edit(self, job: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change each node of a job."""
        recipe = json.loads(self.recipe(job).read_text())
        for node in recipe["nodes"]:
            change(node)
        self.recipe(job).write_text(json.dumps(recipe))

    def configure(self, job: str, **values: Any) -> None:
        """Change what stands beside the nodes of a job."""
        recipe = json.loads(self.recipe(job).read_text())
        self.recipe(job).write_text(json.dumps(recipe | values))

    def artifacts(self, job: str) -> list[Path]:
        """Return the folders of a job's artifacts."""
        nodes = json.loads(self.recipe(job).read_text())["nodes"]
        return [self.path / "results" / node["kind"] / node["name"] for node in nodes]

    def copy(self, path: Path) -> "Folder":
        """Copy everything to another folder, in which the jobs then look for their files."""
        shutil.copytree(self.path, path, dirs_exist_ok=True)
        for recipe in (path / "recipes").iterdir():
            recipe.write_text(recipe.read_text().replace(str(self.path), str(path)))
        return Folder(path)

    def spoil(self, job: str, name: str, change: Callable[[Path], object], number: int = 0) -> None:
        """Change a file of an artifact of a job, which then counts as made so."""
        artifact = self.artifacts(job)[number]
        change(artifact / name)
        self.reseal(artifact)

    def plant(self, path: Path) -> None:
        """Write a pickle that writes a file `pwned` into the working directory of whoever loads it."""
        if path.suffix == ".bin":
            torch.save(_Pwns(), path)
        else:
            path.write_bytes(pickle.dumps(_Pwns()))

    def reseal(self, artifact: Path) -> None:
        """Declare the files of an artifact as they are now to be what was made: nothing is damaged, only bad."""
        manifest, record = read_manifest(artifact), json.loads((artifact / RECORD).read_text())
        own = {key: record[key] for key in ("code", "environment", "started", "seconds")}
        write_manifest(artifact, replace(manifest, files=describe_files(artifact)), own)


def of_one_model(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Keep the nodes made from the same model as the first: then a bad one leaves nothing for the job to do."""
    return tuple(node for node in nodes if node.parents.get("model") == nodes[0].parents.get("model"))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder that tests get copies of."""
    folder = tmp_path_factory.mktemp("made")
    write_corpus(folder / "corpus.jsonl")
    (folder / "study.yaml").write_text(study_with("runs", {"trunk": STUDY["runs"]["trunk"]}))
    plan = make_plan(folder / "study.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for kind in KINDS:
            for number, job in enumerate(plan.jobs(kind)):
                recipe = folder / "recipes" / f"{kind}-{number}.json"
                write_json(recipe, replace(job, nodes=of_one_model(job.nodes)).to_json())
                if KINDS.index(kind) <= KINDS.index("quantized"):
                    assert cli.main([kind, str(recipe), str(folder / "results")]) == 0
    return Folder(folder)


@pytest.fixture
def folder(made: Folder, here: Path) -> Folder:
    """A copy of the folder, to be spoiled, which is also where commands run."""
    return made.copy(here)


@pytest.fixture
def model(folder: Folder) -> Path:
    """A Hugging Face directory, which someone may have brought."""
    checkpoint = folder.artifacts("checkpoint-0")[0]
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    (folder.path / "model").mkdir()
    for name in names:
        shutil.copyfile(checkpoint / name, folder.path / "model" / name)
    return folder.path / "model"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own folder to work in, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def write_study(here: Path) -> Callable[[str, Any], None]:
    """Write the study, with another value at a dotted key, and its documents."""

    def write(key: str, value: Any) -> None:
        write_corpus(here / "corpus.jsonl")
        (here / "study.yaml").write_text(study_with(key, value))

    return write


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str], counted: Callable[[str], None]) -> Refused:
    """Run a command that must be refused with the message expected, status 2, and no trace in the folder."""

    def run(*arguments: object, expected: str, untouched: Callable[[Path], object] = tree) -> None:
        capsys.readouterr()
        before = untouched(here)
        try:
            status: object = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
        said = capsys.readouterr()
        assert untouched(here) == before
        assert status == 2, said.err
        assert said.out == ""
        (line,) = said.err.splitlines()
        pattern = ".*".join(map(re.escape, expected.split(ANYTHING)))
        assert re.fullmatch(f"coolbits: {pattern}", line), line
        counted("bad inputs refused")

    return run


@pytest.fixture
def stage_refused(refused: Refused, folder: Folder) -> Callable[[str, str], None]:
    """Run a job that has its artifacts to make, and must be refused without a file of its own, whole or in part."""

    def kept(place: Path) -> dict[str, tuple[int, int]]:
        # The empty folder of its kind may stay, and the place of unfinished work.
        below = {name: state for name, state in tree(place).items() if not name.startswith("results/work")}
        return {name: state for name, state in below.items() if (place / name).is_file() or "/." in name}

    def run(job: str, message: str) -> None:
        kind = job.partition("-")[0]
        for artifact in own[job]:
            shutil.rmtree(artifact, ignore_errors=True)
        recipe = f"recipes/{job}.json"
        refused(kind, recipe, "results", expected=f"{recipe}: {message}", untouched=kept)

    own = {path.stem: folder.artifacts(path.stem) for path in (folder.path / "recipes").iterdir()}
    return run
