"""Nothing that a kept result needs is ever garbage; all that nothing needs is."""

import fcntl
import json
import os
from time import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import MANIFEST
from coolbits.artifacts.node import Node, fingerprint_of
from coolbits.provenance.garbage import HOURS_AT_WORK, demand_idle, find_garbage, other_studies, remove
from coolbits.provenance.lineage import artifacts_below, trace

# From the corpus to the claims; an artifact has parents of earlier kinds.
KINDS = ("corpus", "tokenizer", "shards", "checkpoint", "quantized", "evaluation", "table", "figure", "claims")
RESULTS = ("table", "figure", "claims")


def write_artifact(root, node, digests):
    """A manifest without files: all that a walk reads."""
    manifest = {
        "format": 1,
        **{name: getattr(node, name) for name in ("kind", "name", "fingerprint", "recipe")},
        "parents": {role: {**vars(ref), "digest": digests[ref.kind, ref.name]} for role, ref in node.parents.items()},
        "files": {},
        "summary": {"outcome": "complete"},
    }
    folder = node.directory(root)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    digests[node.kind, node.name] = node.fingerprint


@st.composite
def graphs(draw):
    """Random artifacts of two studies: (nodes, the places of those that the given study wants)."""
    nodes = []
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(KINDS))
        earlier = [node for node in nodes if KINDS.index(node.kind) < KINDS.index(kind)]
        parents = (
            draw(st.lists(st.sampled_from(earlier), max_size=3, unique_by=lambda node: node.name)) if earlier else []
        )
        refs = {f"role.{place}": node.ref for place, node in enumerate(parents)}
        study = draw(st.sampled_from(["given", "other"])) if kind in RESULTS else "shared"
        recipe = {"number": number}
        nodes.append(Node(kind, f"{study}/a{number}", recipe, refs, fingerprint_of(kind, recipe, refs)))
    mine = [node for node in nodes if not node.name.startswith("other/")]
    return nodes, draw(st.lists(st.sampled_from(mine), unique_by=lambda node: node.name)) if mine else []


def needed(nodes, starts):
    """Oracle: the names of `starts` and all their ancestors."""
    by_name = {node.name: node for node in nodes}
    found = set()
    waiting = [node.name for node in starts]
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting += [ref.name for ref in by_name[name].parents.values()]
    return found


@settings(max_examples=150, deadline=None)
@given(graph=graphs())
def test_what_stays_is_what_is_wanted_and_other_results_and_all_behind_them(tmp_path_factory, graph):
    nodes, wanted = graph
    root, digests = tmp_path_factory.mktemp("results"), {}
    for node in nodes:
        write_artifact(root, node, digests)
    plan = {(node.kind, node.name): node.fingerprint for node in wanted}
    for garbage in find_garbage(root, plan, ["given"]).garbage:
        remove(garbage, root)
        # Stopped at any moment, what is left has all its parents.
        assert all(artifact.manifest for artifact in trace(root, artifacts_below(root, root)))
    kept_results = [node for node in nodes if node.name.startswith("other/")]
    assert {name for _, name in artifacts_below(root, root)} == needed(nodes, [*wanted, *kept_results])
    assert find_garbage(root, plan, ["given"]).garbage == []


def keys(root):
    return set(artifacts_below(root, root))


def plan_of(root, but=()):
    """A plan that wants all that is there save some kinds."""
    lineage = trace(root, artifacts_below(root, root))
    return {artifact.key: artifact.manifest.fingerprint for artifact in lineage if artifact.kind not in but}


def test_results_of_a_study_that_is_not_given_stay_with_all_behind_them(lab):
    assert find_garbage(lab.root, {}, ["another"]).garbage[0].path == lab.one("checkpoint")
    assert len(find_garbage(lab.root, {}, ["another"]).garbage) == 1


def test_without_any_wanted_artifact_a_given_study_goes_children_first(lab):
    gone = [garbage.path.relative_to(lab.root).parts[0] for garbage in find_garbage(lab.root, {}, ["tiny"]).garbage]
    assert gone == [
        *("figure", "table", "evaluation", "evaluation", "quantized"),
        *("checkpoint", "checkpoint", "shards", "tokenizer", "corpus"),
    ]


def test_what_a_present_result_was_made_from_stays_though_the_study_has_changed(lab):
    sweep = find_garbage(lab.root, plan_of(lab.root, but=("quantized", "evaluation")), ["tiny"])
    assert sweep.garbage == []
    assert {kind for kind, _ in sweep.held} == {"quantized", "evaluation"}


def age(folder):
    """Let a folder and its files look as if nobody had written to them for as long as a job may take between files."""
    moment = time() - HOURS_AT_WORK * 3600 - 1
    for path in (*folder.iterdir(), folder):
        os.utime(path, (moment, moment))


def test_what_becomes_an_artifact_stays_as_long_as_a_job_of_another_machine_may_write_to_it(lab):
    young = lab.root / "evaluation" / ".loss.0123abcd.new"
    young.mkdir()
    (young / "file").write_text("12345")
    age(young)
    assert [garbage.path for garbage in find_garbage(lab.root, plan_of(lab.root), ["tiny"]).garbage] == [young]
    (young / "file").write_text("123456")
    sweep = find_garbage(lab.root, plan_of(lab.root), ["tiny"])
    assert (sweep.garbage, sweep.at_work) == ([], [young])


def test_blocks_of_a_quantization_go_with_its_node_unless_a_job_may_be_adding_to_them(lab):
    own = f"work/quantized/{lab.one('quantized').name}"
    gone, young = (lab.root / "work" / "quantized" / name for name in ("gone-0123", "young-0123"))
    for folder in (lab.root / own, gone, young):
        (folder / "000000").mkdir(parents=True)
        (folder / "000000" / "file").write_text("12345")
    for part in (own, "work/quantized/gone-0123"):
        age(lab.root / part / "000000")
        age(lab.root / part)
    (lab.root / "quantized" / lab.one("quantized").name / MANIFEST).rename(lab.root / "manifest")
    sweep = find_garbage(lab.root, plan_of(lab.root), ["tiny"])
    assert [(garbage.path, garbage.bytes) for garbage in sweep.garbage] == [(gone, 5)]
    assert sweep.at_work == [young]


def test_blocks_of_a_quantization_that_is_stored_go(lab):
    left = lab.root / "work" / "quantized" / lab.one("quantized").name
    left.mkdir(parents=True)
    age(left)
    assert [garbage.path for garbage in find_garbage(lab.root, plan_of(lab.root), ["tiny"]).garbage] == [left]


def test_work_goes_with_its_trajectory_and_leftovers_of_killed_jobs_always(lab):
    track = lab.one("checkpoint").parent.name
    places = [
        *(f"work/checkpoint/{track}", "work/checkpoint/gone-0123", "work/shards/gone", "work/boards"),
        *("work/compile-cache", "evaluation/.loss.0123abcd.new", f"checkpoint/{track}/.step_0000030.0123abcd.old"),
    ]
    for place in places:
        (lab.root / place).mkdir(parents=True)
        (lab.root / place / "file").write_text("12345")
        age(lab.root / place)
    found = find_garbage(lab.root, plan_of(lab.root), ["tiny"]).garbage
    assert {(garbage.path.relative_to(lab.root).as_posix(), garbage.bytes) for garbage in found} == {
        *(("work/checkpoint/gone-0123", 5), ("work/shards/gone", 5), ("evaluation/.loss.0123abcd.new", 5)),
        (f"checkpoint/{track}/.step_0000030.0123abcd.old", 5),
    }


def test_removing_takes_emptied_folders_along_and_leaves_the_others(lab):
    first, second = sorted(lab.one("checkpoint").parent.iterdir())
    for place in (first, second):
        (garbage,) = [item for item in find_garbage(lab.root, {}, ["tiny"]).garbage if item.path == place]
        remove(garbage, lab.root)
        assert not place.exists()
        assert second.parent.exists() == (place == first)
    assert (lab.root / "shards").exists()


def test_behind_a_lost_link_of_a_kept_result_nothing_may_go(lab):
    quantized = lab.one("quantized")
    (quantized / "manifest.json").unlink()
    (quantized / "record.json").unlink()
    with pytest.raises(CoolbitsError) as error:
        find_garbage(lab.root, {}, ["another"])
    assert str(error.value) == (
        f"{quantized}: a result that stays needs it, but it has no readable manifest, so what it was made from is not "
        "known; make it again, or delete the results that need it: `coolbits audit` names them"
    )


def test_a_lost_link_that_a_given_study_knows_is_no_obstacle(lab):
    plan = plan_of(lab.root)
    quantized = lab.one("quantized")
    (quantized / "manifest.json").unlink()
    (quantized / "record.json").unlink()
    assert find_garbage(lab.root, plan, ["tiny"]).garbage == []
    changed = plan | {("quantized", quantized.name): "0" * 64}
    with pytest.raises(CoolbitsError, match="has no readable manifest"):
        find_garbage(lab.root, changed, ["tiny"])


def test_a_training_that_runs_refuses(lab, monkeypatch):
    monkeypatch.chdir(lab.root)
    folder = lab.root / "work" / "checkpoint" / "track"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        lock.write("123")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CoolbitsError) as error:
            demand_idle(lab.root)
    assert str(error.value) == f"{folder}/lock: process 123 works here now; wait for it, or stop it"
    demand_idle(lab.root)
    assert (folder / "lock").read_text() == "123"


@pytest.mark.parametrize("place", ["here", "beside the link", "beside the results"])
def test_a_snakemake_that_runs_or_was_killed_refuses(lab, tmp_path, monkeypatch, place):
    folders = {"here": tmp_path / "a", "beside the link": tmp_path / "b", "beside the results": lab.root.parent}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folders["here"])
    link = folders["beside the link"] / "results"
    link.symlink_to(lab.root)
    locks = folders[place] / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    demand_idle(link)
    (locks / "0.input.lock").write_text("results/a")
    with pytest.raises(CoolbitsError) as error:
        demand_idle(link)
    assert str(error.value) == f"{locks}: Snakemake runs here; wait for it, or, if it was killed, `snakemake --unlock`"


def test_other_studies_are_those_with_a_board(lab):
    (lab.root / "work" / "boards").mkdir(parents=True)
    for name in ("tiny", "large"):
        (lab.root / "work" / "boards" / f"{name}.json").write_text("{}")
    assert other_studies(lab.root, ["tiny"]) == ["large"]


@pytest.mark.parametrize("moved", [["figure/tiny", "table/tiny"], ["figure", "table"], ["checkpoint"]])
def test_results_on_another_disk_hold_what_they_were_made_from(lab, move_away, moved):
    for place in moved:
        move_away(place)
    sweep = find_garbage(lab.root, {}, ["another"])
    assert [garbage.path for garbage in sweep.garbage] == [lab.root / "checkpoint" / track(lab) / "step_0000010"]


def track(lab):
    return next((lab.root / "checkpoint").iterdir()).name


def test_what_nothing_needs_goes_from_another_disk_too_and_the_link_to_it_stays(lab, move_away):
    disk = move_away(f"checkpoint/{track(lab)}")
    for garbage in find_garbage(lab.root, {}, ["tiny"]).garbage:
        remove(garbage, lab.root)
    assert list(disk.iterdir()) == []
    assert list(lab.root.iterdir()) == [lab.root / "checkpoint"]


def test_of_an_artifact_that_is_a_link_the_link_goes_alone(lab, move_away):
    disk = move_away("figure/tiny/tokens")
    (garbage, *_) = find_garbage(lab.root, {}, ["tiny"]).garbage
    assert (garbage.path, garbage.bytes) == (lab.root / "figure" / "tiny" / "tokens", 0)
    assert garbage.why == "no study reaches it; a link, and what it leads to stays"
    remove(garbage, lab.root)
    assert not (lab.root / "figure").exists()
    assert (disk / "manifest.json").is_file()


def test_what_stays_does_not_go_under_another_name(lab):
    (lab.root / "checkpoint" / "latest").symlink_to(lab.one("checkpoint").parent)
    wanted = {key: value for key, value in plan_of(lab.root).items() if not key[1].startswith("latest")}
    assert find_garbage(lab.root, wanted, ["tiny"]).garbage == []


def test_under_two_names_it_goes_once(lab):
    (lab.root / "checkpoint" / "latest").symlink_to(lab.one("checkpoint").parent)
    for garbage in find_garbage(lab.root, {}, ["tiny"]).garbage:
        remove(garbage, lab.root)
    assert keys(lab.root) == set()


@pytest.mark.parametrize("place", ["checkpoint", "figure/tiny"])
def test_nothing_goes_while_the_other_disk_is_not_there(lab, move_away, place):
    move_away(place).rename(lab.root.parent / "unmounted")
    with pytest.raises(CoolbitsError) as error:
        find_garbage(lab.root, {}, ["another"])
    assert str(error.value) == (
        f"{lab.root / place}: a link that leads nowhere; mount what it leads to, or delete it if that is gone for good"
    )


@pytest.mark.parametrize("back", [".", "..", "../..", "tokens"])
def test_links_that_lead_back_are_not_followed_for_ever(lab, back):
    before = keys(lab.root)
    (lab.root / "figure" / "tiny" / "back").symlink_to(back)
    (lab.root / "figure" / "tiny" / "tokens" / "back").symlink_to("..")
    assert keys(lab.root) - {("figure", "tiny/back")} == before
