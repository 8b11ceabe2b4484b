import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST, read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.ptq import checkpoint as ptq_checkpoint
from coolbits.ptq import stage
from coolbits.ptq.unfinished import Kept, Place
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.methods import AWQ, GPTQ, RTN, Grid, Method
from coolbits.study.recipes.ptq import Quantized

GRID = Grid(bits=3, group_size=16)
CALIBRATED = GPTQ(grid=GRID, calibration=Windows(sequences=8, sequence_length=32), sequential="none")
SEQUENTIAL = GPTQ(grid=GRID, calibration=CALIBRATED.calibration)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", Slice("coolbits.ptq.stage", {}))


def put(store: Store, kind: str, source: Path | None, summary: dict) -> Node:
    """Make an artifact of `kind` in the store with the files of `source`."""
    node = make_node(kind, "parent", {"of": kind, **summary}, {})

    def build(out: Path) -> dict:
        if source is not None:
            shutil.copytree(source, out, dirs_exist_ok=True)
        return summary

    store.ensure(node, build)
    return node


def quantized(method: Method, model: Node, calibration: Node | None = None) -> Node:
    parents = {"model": model.ref} | ({"calibration": calibration.ref} if calibration else {})
    return make_node("quantized", method.kind, Quantized(method=method).identity(), parents)


def test_nodes_of_a_checkpoint_are_made_in_one_go(
    store: Store, checkpoint: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    load: Callable = stage.load_model

    def counting(model: Path, dtype: None):
        loads.append(model)
        return load(model, dtype=dtype)

    monkeypatch.setattr(stage, "load_model", counting)
    model, tokens = put(store, "checkpoint", checkpoint, {}), put(store, "calibration", calibration, {})
    nodes = (quantized(RTN(grid=GRID), model), quantized(CALIBRATED, model, tokens))
    job = Job("quantized", "test", nodes, {"device": "cpu"})
    assert stage.run(job, store) == 2
    assert len(loads) == 1
    for node in nodes:
        manifest = read_manifest(store.directory(node))
        assert manifest.summary["modules"] == 8
        assert set(manifest.files) == {"codes.safetensors", "layout.json", "ledger.parquet"}
    assert stage.run(job, store) == 0
    assert len(loads) == 1


def test_only_what_is_missing_is_made(store: Store, checkpoint: Path) -> None:
    model = put(store, "checkpoint", checkpoint, {})
    first, second = (quantized(RTN(grid=Grid(bits=bits, group_size=16)), model) for bits in (3, 4))
    stage.run(Job("quantized", "first", (first,)), store)
    before = (store.directory(first) / "record.json").read_bytes()
    assert stage.run(Job("quantized", "both", (first, second)), store) == 1
    assert (store.directory(first) / "record.json").read_bytes() == before
    (store.directory(first) / "manifest.json").unlink()
    assert stage.run(Job("quantized", "both", (first, second)), store) == 0
    assert (store.directory(first) / "manifest.json").exists()


class Killed(BaseException):
    pass


def killed(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("last", ["one_pass", "awq_pass"])
def test_a_job_that_is_killed_keeps_what_was_done(
    last: str, store: Store, checkpoint: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What shares no pass with what was at work is stored by then, and no job makes it again."""
    model, tokens = put(store, "checkpoint", checkpoint, {}), put(store, "calibration", calibration, {})
    finished = [RTN(grid=GRID), SEQUENTIAL, *([CALIBRATED] if last == "awq_pass" else [])]
    at_work = AWQ(grid=GRID, calibration=CALIBRATED.calibration) if last == "awq_pass" else CALIBRATED
    made = [quantized(method, model, tokens) for method in finished]
    unmade = quantized(at_work, model, tokens)
    job = Job("quantized", "test", (unmade, *made), {"device": "cpu"})
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(ptq_checkpoint, last, killed)
        stage.run(job, store)
    assert not store.is_current(unmade)
    records = [(store.directory(node) / "record.json").read_bytes() for node in made]
    for node in made:  # as Snakemake does with the outputs of a job that failed
        (store.directory(node) / MANIFEST).unlink()
    for other in {"plain_pass", "sequential_pass", "one_pass", "awq_pass"} - {last}:
        monkeypatch.setattr(ptq_checkpoint, other, killed)
    assert stage.run(job, store) == 1
    assert store.is_current(unmade)
    assert [(store.directory(node) / "record.json").read_bytes() for node in made] == records
    assert all((store.directory(node) / MANIFEST).exists() for node in made)


@pytest.fixture
def at_work(
    store: Store, checkpoint: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[Job, Path]]:
    """Start a job on a node, which is killed when the first block is kept; return the job, and where that is."""
    model, tokens = put(store, "checkpoint", checkpoint, {}), put(store, "calibration", calibration, {})
    node = quantized(SEQUENTIAL, model, tokens)
    job = Job("quantized", "test", (node,), {"device": "cpu", "state_every_seconds": 1e-9})

    def start() -> tuple[Job, Path]:
        write = Kept.write
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Kept, "write", lambda kept: killed(write(kept)))
            stage.run(job, store)
        return job, store.root / "work" / "quantized" / node.name

    return start


def test_a_job_goes_on_from_the_blocks_that_were_finished_and_leaves_none(
    store: Store, at_work: Callable[[], tuple[Job, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    job, folder = at_work()
    assert [part.name for part in folder.iterdir()] == ["000000"]
    caplog.set_level("INFO", "coolbits")
    assert stage.run(job, store) == 1
    assert caplog.messages == [f"{folder.name}: goes on after block 1 of 2"]
    assert not folder.exists()
    went_on = (store.directory(job.nodes[0]) / MANIFEST).read_bytes()
    shutil.rmtree(store.directory(job.nodes[0]))
    assert stage.run(job, store) == 1
    assert (store.directory(job.nodes[0]) / MANIFEST).read_bytes() == went_on


def test_blocks_of_other_code_are_not_gone_on_from(
    store: Store, at_work: Callable[[], tuple[Job, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    job, folder = at_work()
    caplog.set_level("INFO", "coolbits")
    assert stage.run(job, replace(store, code=Slice("coolbits.ptq.stage", {"edited": "0"}))) == 1
    (line,) = caplog.messages
    assert line.startswith(f"{folder}/000000: finished blocks of an earlier run, not used: ")


def test_a_kill_between_storing_and_clearing_leaves_nothing_for_good(
    store: Store, at_work: Callable[[], tuple[Job, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, folder = at_work()
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Place, "clear", killed)
        stage.run(job, store)
    assert folder.exists()
    assert stage.run(job, store) == 0
    assert not folder.exists()


def test_a_checkpoint_that_diverged_is_quantized_to_a_note(store: Store) -> None:
    model = put(store, "checkpoint", None, {"outcome": "diverged", "diverged_step": 17})
    node = quantized(RTN(grid=GRID), model)
    assert stage.run(Job("quantized", "test", (node,)), store) == 1
    manifest = read_manifest(store.directory(node))
    assert manifest.diverged
    assert manifest.summary["diverged_step"] == 17
    assert not manifest.files


def test_files_name_no_machine(store: Store, checkpoint: Path) -> None:
    node = quantized(RTN(grid=GRID), put(store, "checkpoint", checkpoint, {}))
    stage.run(Job("quantized", "test", (node,)), store)
    layout = (store.directory(node) / "layout.json").read_text()
    assert str(store.root) not in layout
    assert json.loads(layout)["layers"]["gpt_neox.layers.0.attention.dense"] == {
        "kind": "integer",
        "shape": [32, 32],
        "bits": 3,
        "group_size": 16,
        "symmetric": True,
        "zeros": "integer",
        "groups": "neighbours",
    }
