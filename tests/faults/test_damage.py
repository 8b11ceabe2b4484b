"""Damage: one flipped bit anywhere is found by the audit, and no stage makes a result of a damaged input."""

import itertools
import os
import shutil
from dataclasses import replace
from random import Random

import pytest

from coolbits.artifacts.code import code_slice
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.store import accept
from coolbits.provenance.audit import audit
from coolbits.provenance.lineage import artifacts_below, trace
from coolbits.stages import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workflow")]

FLIPS = 100
ABOUT_THE_TREE = ("dirty", "environment")
OTHER_KINDS = ("pretrained", "conversations", "finetuned", "images", "classifier", "analysis")
CHILDREN = ("tokenizer", "shards", "checkpoint", "average", "calibration", "quantized", "evaluation", "table", "figure")
_times = itertools.count(1)


def spoil(path, change):
    """Change a file's bytes at a moment of its own."""
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, (next(_times), 0))


def flipped(content, random):
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def found(root):
    """The files and artifacts that the audit names."""
    findings = audit(trace(root, artifacts_below(root, root)))
    held = [finding for finding in findings if not finding.information and finding.what not in ABOUT_THE_TREE]
    return {place for finding in held for place in finding.where}


def flip_and_find(lab, least):
    """Flip so many bits, and at least one in each file of each kind, each of which the audit must find.

    Return how many were flipped, and the files by kind and name.
    """
    random, root = Random(2), lab.root
    assert found(root) == set()
    artifacts = [root.joinpath(*key) for key in artifacts_below(root, root)]
    files = {
        place: [path for path in place.rglob("*") if path.is_file() and path.stat().st_size] for place in artifacts
    }
    kinds = {(place.relative_to(root).parts[0], path.name) for place in artifacts for path in files[place]}
    spoiled, flips = set(), 0
    while flips < least or spoiled != kinds:
        # One bit in each artifact: a damaged manifest may hide what else is wrong with its own.
        whole = {}
        for place in artifacts:
            kind = place.relative_to(root).parts[0]
            path = random.choice([path for path in files[place] if (kind, path.name) not in spoiled] or files[place])
            spoiled.add((kind, path.name))
            whole[path] = path.read_bytes()
            spoil(path, lambda content: flipped(content, random))
        assert {path.relative_to(root).as_posix() for path in whole} - found(root) == set()
        for path, content in whole.items():
            path.write_bytes(content)
        flips += len(whole)
    assert {kind for kind, _ in kinds} == {node.kind for node in lab.plan.nodes}
    assert found(root) == set()
    return flips, kinds


def test_a_hundred_flipped_bits_are_each_found(lab, counted):
    for job in (lab.job("checkpoint"), lab.job("evaluation")):
        for node in job.nodes:
            accept(node.directory(lab.root), code_slice(STAGES[node.kind]), "me", "nothing changed")
    flips, kinds = flip_and_find(lab, FLIPS)
    names = {name for _, name in kinds}
    assert names >= {"manifest.json", "record.json", "accepted.json", "throughput.parquet", "seconds.parquet"}
    counted("flipped bits found", flips)


def test_so_are_those_in_the_kinds_that_only_the_other_study_has(other_lab, counted):
    flips, kinds = flip_and_find(other_lab, FLIPS // 2)
    assert {kind for kind, _ in kinds} >= set(OTHER_KINDS)
    counted("flipped bits found", flips)


def test_the_two_studies_have_every_kind_of_artifact(finished, other_kinds):
    first, second = ({node.kind for node in plan.nodes} for plan in (finished.plan(), other_kinds.plan))
    assert second - first == set(OTHER_KINDS)
    assert first | second == set(STAGES)


def refuse_damaged(lab, job, parents, random, counted):
    """Have a job of one node, that has yet to be made, refuse each file of these parents with a flipped bit."""
    (node,) = job.nodes
    lab.forget(job)
    for path in sorted(path for parent in parents for path in parent.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        if not whole:
            continue
        spoil(path, lambda content: flipped(content, random))
        assert lab.run(job) == 2, path
        (said,) = [line for line in lab.said() if line.startswith("coolbits: ")]
        assert str(path.parent) in said
        assert not node.directory(lab.root).exists()
        counted("damaged inputs refused")
        spoil(path, lambda _, whole=whole: whole)
    assert lab.run(job) == 0
    lab.demand_whole(every=True)


@pytest.mark.parametrize("kind", [*CHILDREN, "claims"])
def test_no_stage_makes_anything_of_a_damaged_parent(lab, kind, counted):
    random, job = Random(kind), lab.job(kind, nodes=1)
    parents = {ref.directory(lab.root) for ref in job.nodes[0].parents.values()}
    refuse_damaged(lab, job, random.sample(sorted(parents), min(4, len(parents))), random, counted)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_no_stage_makes_anything_of_a_damaged_parent_of_another_kind(other_lab, kind, counted):
    lab = other_lab
    job, node, parent = next(
        (job, node, ref.directory(lab.root))
        for job in lab.jobs
        for node in job.nodes
        for ref in node.parents.values()
        if ref.kind == kind
    )
    refuse_damaged(lab, replace(job, nodes=(node,)), [parent], Random(kind), counted)


@pytest.mark.parametrize("kind", ["conversations", "finetuned", "classifier"])
def test_nor_do_the_stages_that_only_the_other_study_has(other_lab, kind, counted):
    lab, job = other_lab, other_lab.job(kind, nodes=1)
    parents = {ref.directory(lab.root) for ref in job.nodes[0].parents.values()}
    refuse_damaged(lab, job, parents, Random(kind), counted)


def test_a_table_makes_nothing_of_a_damaged_manifest_two_steps_behind_it(lab):
    job = next(job for job in lab.jobs if job.name.endswith("-loss") and job.kind == "table")
    lab.forget(job)
    places = [node.directory(lab.root) / "manifest.json" for node in lab.job("quantized").nodes]
    for path in places[:2]:
        whole = path.read_bytes()
        spoil(path, lambda content: content.replace(b'"fallbacks": 0', b'"fallbacks": 1'))
        assert lab.run(job) == 2
        assert any("was made from; run `snakemake`" in line for line in lab.said())
        spoil(path, lambda _, whole=whole: whole)
    assert lab.run(job) == 0
    lab.demand_whole(every=True)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "metrics.parquet"])
def test_a_checkpoint_cut_off_anywhere_is_trained_again_from_the_one_before(lab, name):
    job = lab.job("checkpoint")
    path = job.nodes[-1].directory(lab.root) / name
    size = path.stat().st_size
    lengths = [0, size // 2, size - 1]
    for length in lengths:
        spoil(path, lambda content, length=length: content[:length])
        assert lab.run(job) == 0
        assert f"{job.name}: 1 made, {len(job.nodes) - 1} kept" in lab.said()
        assert path.stat().st_size == size
    lab.demand_whole(every=True)


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("model.safetensors", False),
        ("state.safetensors", True),
        ("state.json", False),
        ("metrics.parquet", True),
        ("owner.json", False),
    ],
)
def test_a_damaged_state_is_not_gone_on_from(lab, name, cut):
    random, job = Random(name), lab.job("checkpoint")
    lab.forget(job)
    states = lab.root / "work" / "checkpoint" / job.nodes[0].name.partition("/")[0] / "states"
    process = lab.start(job)
    while not any(states.glob("step_*")):
        process.join(0.001)
    process.kill()
    process.join()
    for state in states.glob("step_*"):
        spoil(state / name, lambda content: content[: len(content) // 2] if cut else flipped(content, random))
    assert lab.run(job) == 0
    lab.demand_whole(every=True)


def test_a_damaged_manifest_is_put_back_from_the_record(lab):
    random = Random(3)
    for kind in ("corpus", "checkpoint", "evaluation", "figure"):
        job = lab.job(kind)
        path = job.nodes[0].directory(lab.root) / "manifest.json"
        spoil(path, lambda content: flipped(content, random))
        assert lab.run(job) == 0
        assert f"{job.name}: 0 made, {len(job.nodes)} kept" in lab.said()
    lab.demand_whole(every=True)


@pytest.mark.parametrize("name", ["record.json", "throughput.parquet", "seconds.parquet"])
def test_what_has_lost_its_vouching_is_made_again(lab, name):
    random, job = Random(name), lab.job("quantized" if name == "seconds.parquet" else "checkpoint")
    path = job.nodes[0].directory(lab.root) / name
    spoil(path, lambda content: flipped(content, random))
    assert lab.run(job) == 0
    assert f"{job.name}: 1 made, {len(job.nodes) - 1} kept" in lab.said()
    lab.demand_whole(every=True)
    assert found(lab.root) == set()


def test_lost_directories_are_made_again(lab):
    random = Random(4)
    lost = [random.choice(nodes) for kind in STAGES if (nodes := lab.plan.of_kind(kind))]
    for node in lost:
        shutil.rmtree(node.directory(lab.root))
    shutil.rmtree(lab.root / "evaluation")
    lab.finish()
    for node in lost:
        assert read_manifest(node.directory(lab.root)).fingerprint == node.fingerprint
