"""Finished micro studies to spoil, and processes to kill: forked, so that none of them imports everything again."""

import errno
import importlib.util
import itertools
import json
import multiprocessing
import operator
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import yaml

from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import damaged_files, read_manifest
from coolbits.cli import main
from coolbits.provenance.lineage import artifacts_below
from coolbits.study.plan import KINDS, Plan, make_plan

# What is defined here has no name in a forked process.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
context = multiprocessing.get_context("forkserver")


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


project_of_workflow = _load("project_of_workflow", Path(__file__).parents[1] / "workflow" / "conftest.py")
finished = project_of_workflow.finished
models_of_others = _load("models_of_others", Path(__file__).parents[1] / "pretrained" / "conftest.py")

DONE = 0
Before = Callable[[], Any]
_CHANGES = ("open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir")


class ByValue:
    """A function that arrives in another process with everything of its own that has no name there."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        return cloudpickle.loads, (cloudpickle.dumps(self._function),)


class Lab:
    """A results folder in which the jobs of a micro study are run by forked processes.

    `whole` has the results of the study that nothing happened to: how it must end.
    """

    def __init__(self, root: Path, plan: Plan, whole: Path) -> None:
        self.root, self.plan, self.whole = root, plan, whole
        # States are saved all the time, so that many a fault hits a save.
        self.jobs = [replace(job, execution=job.execution | {"state_every_seconds": 0.01}) for job in _jobs(plan)]
        self._said = root.parent / "said.txt"

    def job(self, kind: str, nodes: int | None = None, number: int = 0) -> Job:
        """The job of a kind, cut down to its first nodes."""
        job = [job for job in self.jobs if job.kind == kind][number]
        return replace(job, nodes=job.nodes[:nodes])

    def start(self, job: Job, before: Before = lambda: None) -> BaseProcess:
        """Start a process that does `before`, then what `coolbits KIND RECIPE OUT` does for a job."""
        recipe, kind, root, saying = self.root.parent / f"{job.name}.json", job.kind, self.root, self._said
        recipe.write_text(json.dumps(job.to_json()))

        def work() -> None:
            with saying.open("a") as said:
                for descriptor in (1, 2):
                    os.dup2(said.fileno(), descriptor)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
            before()
            os._exit(main([kind, str(recipe), str(root)]))

        process = context.Process(target=operator.call, args=(ByValue(work),))
        process.start()
        return process

    def run(self, job: Job, before: Before = lambda: None) -> int:
        """Run a job in a process of its own; return its status, or minus the number of the signal that ended it."""
        process = self.start(job, before)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def said(self) -> list[str]:
        """Return the lines that jobs said since this was last asked."""
        lines = self._said.read_text().splitlines() if self._said.exists() else []
        self._said.unlink(missing_ok=True)
        return lines

    def finish(self) -> None:
        """Run all jobs; the study must then be the one that nothing happened to, and nothing be left to do."""
        for job in self.jobs:
            assert self.run(job) == DONE, self.said()
        self.demand_whole(every=True)
        self.said()
        for job in self.jobs:
            assert self.run(job) == DONE
        assert [line for line in self.said() if " made, " in line] == [
            f"{job.name}: 0 made, {len(job.nodes)} kept" for job in self.jobs
        ]

    def demand_whole(self, every: bool = False) -> None:
        """Demand that each artifact that a reader can see, or `every` one of the study, is whole and as it must be."""
        found, expected = manifests(self.root), manifests(self.whole)
        assert found == expected if every else found.items() <= expected.items()
        for name in found:
            assert damaged_files(self.root / name, read_manifest(self.root / name)) == []

    def forget(self, job: Job) -> None:
        """Remove what a job made."""
        for node in job.nodes:
            shutil.rmtree(node.directory(self.root), ignore_errors=True)

    def kill_at(self, number: int) -> Before:
        """Return what ends a process, as a power cut would, before its change of that number to the results."""
        return self._at_change(lambda count: count == number and os.kill(os.getpid(), signal.SIGKILL))

    def fill_from(self, number: int) -> Before:
        """Return what has the disk be full from a process's change of that number to the results on."""

        def refuse(count: int) -> None:
            if count >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return self._at_change(refuse, _takes_space)

    def _at_change(self, act: Callable[[int], Any], of_interest: Callable[..., bool] = lambda *_: True) -> Before:
        """Return what has a process `act`, given how many there were, just before each change to the results.

        Opening an unfinished file counts as one: so a file is written, read back to be hashed, and synced.
        """
        root = str(self.root)

        def before() -> None:
            counts = itertools.count(1)

            def hook(event: str, arguments: tuple[Any, ...]) -> None:
                if event in _CHANGES and _is_change(event, arguments[0], root) and of_interest(event, *arguments):
                    act(next(counts))

            sys.addaudithook(hook)

        return before

    def seconds(self, job: Job) -> float:
        """How long a job took in the study that nothing happened to."""
        return sum(
            json.loads((node.directory(self.whole) / "record.json").read_text())["seconds"] for node in job.nodes
        )


def manifests(root: Path) -> dict[str, bytes]:
    """Return the manifests of the artifacts that can be seen, by name."""
    return {"/".join(key): (root.joinpath(*key) / "manifest.json").read_bytes() for key in artifacts_below(root, root)}


def _jobs(plan: Plan) -> Iterator[Job]:
    for kind in KINDS:
        yield from sorted(plan.jobs(kind), key=lambda job: any("start" in node.parents for node in job.nodes))


def _is_change(event: str, place: Any, root: str) -> bool:
    path = os.fsdecode(place) if isinstance(place, str | bytes | os.PathLike) else ""
    if event == "open":
        return path.startswith(root) and ("/." in path or "/work/" in path)
    # Whole trees are removed by names relative to open folders.
    return path.startswith(root) or not path.startswith("/")


def _takes_space(event: str, _place: Any, *details: Any) -> bool:
    return event in ("os.mkdir", "os.link") or (event == "open" and bool(details[1] & (os.O_WRONLY | os.O_RDWR)))


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> None:
    """Start the server; its processes compute as those that Snakemake starts, with one thread."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("OMP_NUM_THREADS", "1")
        context.set_forkserver_preload(["forked"])
        forkserver.ensure_running()


@pytest.fixture
def empty(finished, tmp_path) -> Lab:
    """A results folder with nothing in it."""
    (tmp_path / "results").mkdir()
    return Lab(tmp_path / "results", finished.plan(), finished.results)


@pytest.fixture
def lab(finished, tmp_path) -> Lab:
    """The results of the finished study, to spoil."""
    return _copied(finished.plan(), finished.results, tmp_path)


@pytest.fixture
def other_lab(other_kinds, tmp_path) -> Lab:
    """The results of the study that has the other kinds, to spoil."""
    return _copied(other_kinds.plan, other_kinds.root, tmp_path)


def _copied(plan: Plan, whole: Path, folder: Path) -> Lab:
    for kind in {node.kind for node in plan.nodes}:
        shutil.copytree(whole / kind, folder / "results" / kind)
    return Lab(folder / "results", plan, whole)


@pytest.fixture(scope="session")
def other_kinds(tmp_path_factory, _fork_server) -> Lab:
    """A study of the kinds that the tiny study has none of, made once by forked processes; never to be changed."""
    folder = tmp_path_factory.mktemp("other")
    project_of_workflow.write_corpus(folder / "corpus.jsonl")
    study = yaml.safe_load((Path(__file__).parent / "other_kinds.yaml").read_text())
    study["pretrained"]["folder"]["parameters"] = _save_model(folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    (folder / "results").mkdir()
    whole = Lab(folder / "results", make_plan(folder / "study.yaml"), folder / "results")
    for job in whole.jobs:
        assert whole.run(job) == DONE, whole.said()
    return whole


def _save_model(folder: Path) -> int:
    """Write a Hugging Face directory `model`, with a tokenizer; return how many parameters it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from coolbits.models.files import save_model

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=264, **sizes))
    models_of_others.byte_tokenizer().save_pretrained(folder / "tokenizer")
    save_model(model, folder / "tokenizer", folder / "model")
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def project_anywhere(tmp_path):
    """A project in which nothing was made yet, in a folder whose name shells and encodings may stumble over."""
    return project_of_workflow.new_project(tmp_path / "Größe & 'Maß' $HOME; 量子")
