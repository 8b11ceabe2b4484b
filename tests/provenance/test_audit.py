"""The audit finds every kind of damage, says it in one line, and says nothing where there is none."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coolbits.artifacts.code import Slice
from coolbits.artifacts.environment import lock_digest
from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import accept
from coolbits.provenance.audit import audit
from coolbits.provenance.circumstances import present_code
from coolbits.provenance.lineage import artifacts_below, trace
from coolbits.stages import STAGES
from coolbits.study.recipes.vision import IDX_FILES
from coolbits.vision.folders import listing_digest

FIGURE = ("figure", "tiny/tokens")


def everything(root):
    return trace(root, artifacts_below(root, root))


def declared(root):
    """Every file that a manifest declares."""
    for path in sorted(root.rglob("manifest.json")):
        yield from (path.parent / name for name in json.loads(path.read_text())["files"])


def spoiled(content, data):
    """The content with one byte that is another."""
    place, mask = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def values(content):
    try:
        return json.loads(content)
    except ValueError:
        return None


def found_with(path, content, root):
    """What the audit says while a file has another content."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        return list(audit(everything(root)))
    finally:
        path.write_bytes(whole)


def test_what_nobody_touched_is_clean_back_to_the_documents(lab):
    assert lab.findings() == []
    lineage = trace(lab.root, [FIGURE])
    kinds = [artifact.kind for artifact in lineage]
    assert kinds == [
        *("corpus", "tokenizer", "shards", "checkpoint", "quantized"),
        *("evaluation", "evaluation", "table", "figure"),
    ]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_other_byte_in_any_declared_file_is_found(template, data):
    path = data.draw(st.sampled_from(list(declared(template))))
    found = found_with(path, spoiled(path.read_bytes(), data), template)
    assert [finding.where for finding in found] == [(path.relative_to(template).as_posix(),)]
    assert not found[0].information


def test_every_single_byte_of_a_table_is_found_once_whatever_it_then_says(template):
    (path,) = template.glob("table/*/loss/table.parquet")
    whole = path.read_bytes()
    for place in range(0, min(len(whole), 400), 7):
        found = found_with(path, whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :], template)
        assert [finding.where for finding in found] == [(path.relative_to(template).as_posix(),)]


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_other_byte_in_any_manifest_is_found(template, data):
    path = data.draw(st.sampled_from(sorted(template.rglob("manifest.json"))))
    content = spoiled(path.read_bytes(), data)
    assume(values(content) != values(path.read_bytes()))  # a blank may be another blank
    assert any(not finding.information for finding in found_with(path, content, template))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_other_byte_in_any_record_is_found(template, data):
    path = data.draw(st.sampled_from(sorted(template.rglob("record.json"))))
    content = spoiled(path.read_bytes(), data)
    assume(values(content) != values(path.read_bytes()))
    assert any(not finding.information for finding in found_with(path, content, template))


def test_an_edit_that_leaves_the_seal_is_found(lab):
    path = lab.one("table") / "record.json"
    path.write_text(path.read_text().replace('"threads": "1"', '"threads": "2"'))
    assert lab.held() == ["changed     table/tiny/loss/record.json: not as it was written: its seal does not fit"]


@pytest.mark.parametrize("name", ["throughput.parquet", "seconds.parquet"])
def test_what_lies_beside_the_content_is_vouched_for_by_the_record(lab, name):
    node = make_node("analysis", "times", {"analysis": "times"}, {})
    lab.make(node, {"data": "content", name: "of this run alone"})
    path = lab.root / "analysis" / node.name / name
    key = ("analysis", node.name)
    assert lab.held(key=key) == []
    assert name not in read_manifest(path.parent).files
    path.write_text("of this run alonE")
    assert lab.held(key=key) == [
        f"changed     analysis/{node.name}/{name}: its SHA-256 is not the one that was recorded"
    ]
    path.unlink()
    assert lab.held(key=key) == [f"missing     analysis/{node.name}/{name}: no such file, but it was recorded"]


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", "[" * 100_000, '{"format": 1}', "\ud800", "NaN", "1e999"])
@pytest.mark.parametrize("name", ["manifest.json", "record.json", "accepted.json"])
def test_files_that_make_no_sense_are_findings(lab, name, content):
    path = lab.one("evaluation") / name
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    assert any(name in line and line.startswith("changed") for line in lab.held(key=("evaluation", path.parent.name)))


def test_a_missing_file_is_found(lab):
    (lab.one("table") / "table.parquet").unlink()
    assert lab.held() == ["missing     table/tiny/loss/table.parquet: no such file, but it was recorded"]


@pytest.mark.parametrize("name", ["table.parquet", "manifest.json", "record.json", "accepted.json"])
def test_a_file_that_cannot_be_opened_is_a_finding(lab, name):
    path = lab.one("table") / name
    path.unlink(missing_ok=True)
    path.symlink_to(path)
    assert f"changed     table/tiny/loss/{name}: not readable (Too many levels of symbolic links)" in lab.held()


def test_a_file_that_a_broken_disk_does_not_give_is_a_finding(lab, monkeypatch):
    path = lab.one("table") / "table.parquet"

    def digest(of):
        if of == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return file_digest(of)

    monkeypatch.setattr("coolbits.provenance.contents.file_digest", digest)
    assert lab.held() == ["changed     table/tiny/loss/table.parquet: not readable (Input/output error)"]


@pytest.mark.parametrize("quick", [False, True])
def test_a_truncated_file_is_found_even_by_size_alone(lab, quick):
    path = lab.one("figure") / "tokens.svg"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:100])
    assert lab.held(quick) == [f"changed     figure/tiny/tokens/tokens.svg: 100 bytes; the manifest says {size:,}"]


def test_quick_reads_small_files_and_no_large_ones(lab, monkeypatch):
    path = lab.one("corpus") / "data"
    path.write_text(path.read_text().upper())
    assert len(lab.held(quick=True)) == 1
    monkeypatch.setattr("coolbits.provenance.contents.SMALL_BYTES", 1)
    assert lab.held(quick=True) == []
    assert len(lab.held(quick=False)) == 1


@pytest.mark.parametrize("name", ["extra.txt", "deeper/extra.bin", ".hidden"])
def test_a_file_that_no_manifest_declares_is_found(lab, name):
    path = lab.one("shards") / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    (line,) = lab.held()
    assert line.startswith(f"undeclared  shards/{path.relative_to(lab.root / 'shards').as_posix()}: ")


def test_files_that_belong_beside_a_manifest_are_no_findings(lab):
    (lab.one("checkpoint") / "throughput.parquet").write_text("tokens a second")
    assert lab.held() == []


def test_an_edited_manifest_disagrees_with_its_record_its_recipe_and_its_children(lab):
    path, child = lab.one("quantized") / "manifest.json", lab.one("evaluation", "loss-q-*")
    lab.rewrite(path, lambda manifest: manifest["recipe"]["method"]["grid"].update(bits=4))
    where = f"changed     quantized/{path.parent.name}/manifest.json: "
    assert lab.held() == [
        f"{where}not the manifest that record.json has a copy of",
        f"{where}its fingerprint is not that of its recipe and parents",
        f"{where}no longer what these were made from: evaluation/{child.name}",
    ]


def test_the_walk_goes_on_behind_what_has_lost_its_manifest(lab):
    before = len(trace(lab.root, [FIGURE]))
    (lab.one("table") / "manifest.json").unlink()
    assert len(trace(lab.root, [FIGURE])) == before
    assert lab.held() == ["missing     table/tiny/loss/manifest.json: no such file"]


def test_an_edited_copy_in_the_record_is_found(lab):
    path = lab.one("table") / "record.json"
    lab.rewrite(path, lambda record: record["manifest"]["summary"].update(rows=3))
    assert lab.held() == ["changed     table/tiny/loss/manifest.json: not the manifest that record.json has a copy of"]


def test_a_record_whose_modules_are_not_those_of_its_digest_is_found(lab):
    path = lab.one("table") / "record.json"
    lab.rewrite(path, lambda record: record["code"]["modules"].popitem())
    assert lab.held()[0] == (
        "changed     table/tiny/loss/record.json: its code digest is not that of the modules that it lists"
    )


def test_a_lost_record_is_found(lab):
    (lab.one("shards") / "record.json").unlink()
    assert lab.held() == [f"missing     shards/{lab.one('shards').name}/record.json: no such file"]


def test_a_parent_that_was_made_again_with_other_bytes_is_found(lab):
    tokenizer = lab.one("tokenizer")
    (tokenizer / "data").write_text("other")
    for name in ("manifest.json", "record.json"):
        lab.rewrite(tokenizer / name, lambda values: values.get("manifest", values)["files"]["data"].update(bytes=5))
    digest = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"
    for name in ("manifest.json", "record.json"):
        lab.rewrite(
            tokenizer / name, lambda values: values.get("manifest", values)["files"]["data"].update(sha256=digest)
        )
    (line,) = lab.held()
    assert line == (
        f"changed     tokenizer/{tokenizer.name}/manifest.json: no longer what these were made from: "
        f"shards/{lab.one('shards').name}, checkpoint/{lab.one('checkpoint').parent.name}/step_0000020"
    )


def test_a_link_to_a_lost_parent_is_found_and_said_once(lab):
    quantized = lab.one("quantized")
    shutil.rmtree(quantized)
    child = lab.one("evaluation", "loss-q-*").name
    assert lab.held() == [f"missing     quantized/{quantized.name}: no such artifact; made from it: evaluation/{child}"]


def test_an_artifact_in_the_place_of_another_is_found(lab):
    first, second = sorted((lab.root / "evaluation").iterdir())
    shutil.rmtree(first)
    shutil.copytree(second, first)
    said = lab.held(key=("evaluation", first.name))
    assert said[0] == (
        f"changed     evaluation/{first.name}/manifest.json: "
        f"the manifest of evaluation/{second.name}, not of what lies here"
    )


def test_a_manifest_that_leads_out_of_the_results_is_not_followed(lab):
    path = lab.one("evaluation") / "manifest.json"
    (path.parent / "record.json").unlink()
    lab.rewrite(path, lambda manifest: manifest["files"].update({"../../../secret": {"sha256": "0", "bytes": 1}}))
    said = lab.held(key=("evaluation", path.parent.name))
    assert any("it names '../../../secret', which is not in the results folder" in line for line in said)


def test_a_figure_whose_lineage_is_not_its_parents_is_found(lab):
    for name in ("manifest.json", "record.json"):
        lab.rewrite(
            lab.one("figure") / name,
            lambda values: values.get("manifest", values)["summary"].update(lineage="0" * 64),
        )
    assert lab.held() == [
        "changed     figure/tiny/tokens/manifest.json: its lineage is not that of its fingerprint and parents"
    ]


def other_code(lab, kind):
    """Have artifacts of a kind made by other code than today's."""
    module = "coolbits.artifacts.store"
    made = present_code(kind)
    before = Slice(made.entry, made.modules | {module: "0" * 64})
    for path in (lab.root / kind).rglob("record.json"):
        lab.rewrite(path, lambda record: record["code"].update(digest=before.digest, modules=before.modules))
    return before


def test_other_code_is_one_line_for_all_artifacts_of_a_kind(lab):
    other_code(lab, "evaluation")
    (line,) = lab.held()
    first, second = sorted(path.name for path in (lab.root / "evaluation").iterdir())
    assert line == (
        f"code        evaluation/{first}, evaluation/{second}: "
        "made by other code than today's (changed: coolbits.artifacts.store)"
    )


def test_a_kind_that_todays_code_does_not_make_is_a_finding(lab, monkeypatch):
    monkeypatch.delitem(STAGES, "table")
    assert lab.held() == ["code        table/tiny/loss: no stage of today's code makes this kind of artifact"]


def test_accepted_code_is_information_and_says_by_whom_and_why(lab):
    other_code(lab, "table")
    accept(lab.one("table"), present_code("table"), "me", "renamed a variable")
    assert lab.held() == []
    (line,) = lab.noted()
    assert line.startswith(
        "note        table/tiny/loss: accepted under today's code (changed: coolbits.artifacts.store) by me on "
    )
    assert line.endswith(": renamed a variable")


def test_what_was_accepted_under_the_code_that_made_it_names_no_change(lab):
    accept(lab.one("table"), present_code("table"), "me", "to be safe")
    (line,) = lab.noted()
    assert line.startswith("note        table/tiny/loss: accepted under today's code by me on ")


def test_what_was_accepted_under_yet_another_code_is_a_finding(lab):
    before = other_code(lab, "table")
    accept(lab.one("table"), Slice(before.entry, {}), "me", "renamed a variable")
    assert [line[:12].strip() for line in lab.held()] == ["code"]
    assert "accepted under code that is not today's" in lab.noted()[0]


def test_a_dirty_tree_is_a_finding_and_an_unknown_commit_a_note(lab):
    lab.rewrite(lab.one("shards") / "record.json", lambda record: record["environment"]["git"].update(dirty=True))
    lab.rewrite(lab.one("table") / "record.json", lambda record: record["environment"].update(git=None))
    assert lab.held() == [
        f"dirty       shards/{lab.one('shards').name}: made from a tree with changes that commit cccccccc does not have"
    ]
    assert lab.noted() == ["note        table/tiny/loss: made from no known commit"]


@pytest.mark.parametrize("device", [{"device": "NVIDIA H200"}, {"host": {"cpu": "Other CPU"}}])
def test_two_devices_within_one_kind_behind_one_figure_are_a_finding(lab, device):
    one, other = (lab.one("evaluation", name) for name in ("loss-q-*", "loss-[!q]*"))
    lab.rewrite(one / "record.json", lambda record: record["environment"].update(device))
    (line,) = lab.held()
    assert line.startswith("device      figure/tiny/tokens: evaluation on different devices: ")
    assert f"cpu (Some CPU) (1, for example evaluation/{other.name})" in line


def test_models_trained_elsewhere_than_the_figure_was_drawn_are_as_it_should_be(lab):
    for path in (lab.root / "checkpoint").rglob("record.json"):
        lab.rewrite(path, lambda record: record["environment"].update(device="NVIDIA H200"))
    assert lab.findings() == []


def test_several_figures_with_one_cause_share_a_line(lab, draw):
    manifest = json.loads((lab.one("table") / "manifest.json").read_text())
    table = Node("table", "tiny/loss", manifest["recipe"], {}, manifest["fingerprint"])
    draw(lab, "tiny/more", table, {"log": True})
    lab.rewrite(
        lab.one("evaluation") / "record.json", lambda record: record["environment"].update(device="NVIDIA H200")
    )
    lines = [finding for finding in audit(everything(lab.root)) if not finding.information]
    assert [finding.where for finding in lines] == [("figure/tiny/more", "figure/tiny/tokens")]


def test_two_environments_behind_one_figure_are_a_finding_that_names_what_differs(lab):
    lab.rewrite(
        lab.one("shards") / "record.json",
        lambda record: record["environment"]["packages"].update(torch="2.12.0", extra="1.0"),
    )
    (line,) = lab.held()
    assert line.startswith(
        "environment figure/tiny/tokens: different environments: torch 2.12.0 (1, for example shards/"
    )
    assert "; torch 2.13.0 (8, for example " in line
    assert "extra" not in line


def test_two_lock_files_behind_one_figure_are_a_finding(lab):
    lab.rewrite(lab.one("shards") / "record.json", lambda record: record["environment"].update(lock="0" * 64))
    (line,) = lab.held()
    assert line == (
        "environment figure/tiny/tokens: different environments: "
        f"lock file 00000000 (1, for example shards/{lab.one('shards').name}); "
        f"lock file {lock_digest()[:8]} (8, for example corpus/{lab.one('corpus').name})"
    )


def test_another_lock_file_than_todays_and_other_threads_are_notes(lab):
    for path in lab.root.rglob("record.json"):
        lab.rewrite(path, lambda record: record["environment"].update(lock="0" * 64))
    lab.rewrite(lab.one("shards") / "record.json", lambda record: record["environment"].update(threads="2"))
    evaluation = lab.one("evaluation") / "record.json"
    lab.rewrite(evaluation, lambda record: record["environment"].update(threads="2"))
    assert lab.held() == []
    said = "\n".join(lab.noted())
    assert "made under another lock file (00000000) than today's" in said
    assert "different numbers of threads: 1 (1, for example evaluation/" in said


def test_diverged_and_fallen_back_models_are_notes(empty, build):
    build(empty, diverged=True)
    assert empty.held() == []
    (line,) = empty.noted()
    assert line.startswith("note        checkpoint/neox-lr0.01-")
    assert line.endswith(": diverged, at step 15")


@pytest.mark.parametrize("kind", ["classifier", "finetuned"])
def test_a_training_of_another_kind_that_diverged_is_a_note(empty, kind):
    outcome = {"outcome": "diverged", "diverged_step": 1200}
    lost, fine = empty.shared(kind, "a", {"seed": 0}, {}, summary=outcome), empty.shared(kind, "b", {"seed": 1}, {})
    table = empty.named("table", "tiny/t", {}, {"0": lost.ref, "1": fine.ref}, files={"table.parquet": "0"})
    said = [finding for finding in empty.findings(key=("table", table.name)) if finding.what == "outcome"]
    assert [str(finding) for finding in said] == [f"note        {kind}/{lost.name}: diverged, at step 1,200"]


def test_what_starts_from_a_diverged_model_is_no_divergence_of_its_own(empty):
    outcome = {"outcome": "diverged", "diverged_step": 15}
    start = empty.named("checkpoint", "track/step_0000020", {"step": 20}, {}, summary=outcome)
    tuned = empty.shared("finetuned", "a", {"seed": 0}, {"start": start.ref}, summary=outcome)
    said = [finding for finding in empty.findings(key=("finetuned", tuned.name)) if finding.what == "outcome"]
    assert [str(finding) for finding in said] == ["note        checkpoint/track: diverged, at step 15"]


def test_fallbacks_are_notes(empty, build):
    build(empty, fallbacks=2)
    assert empty.held() == []
    (line,) = empty.noted()
    assert line.endswith(": 2 modules fell back to another method than the one asked for")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"diverged": True, "said": ("complete", 0)},
            "hidden      table/tiny/loss: 2 of its rows are of diverged models, but 0 say so",
        ),
        (
            {"fallbacks": 2, "said": ("complete", 0)},
            "hidden      table/tiny/loss: its rows count 0 fallbacks, the models behind them 2",
        ),
    ],
    ids=["diverged", "fallback"],
)
def test_a_table_that_hides_an_outcome_is_a_finding(empty, build, options, line):
    build(empty, **options)
    assert empty.held() == [line]


NOT_COMPARED = "its source {} is not where it was read, or not readable; not compared with it"


def corpus_of(lab, source):
    return lab.shared("corpus", "own", {"source": source}, {})


def test_a_corpus_read_from_the_hub_is_a_note(empty):
    node = corpus_of(empty, {"kind": "hub", "id": "owner/set", "revision": "main"})
    (finding,) = empty.findings(key=("corpus", node.name))
    assert finding.information
    assert finding.said == (
        "read from the hub's owner/set at main, which is no commit: what it names may change; not compared with it"
    )


@pytest.mark.parametrize(
    ("commit", "said"),
    [
        ("9876543210" * 4, f"at {'9876543210' * 4}, which main named then; not compared with it"),
        (None, "at main, whose commit is unknown: what it names may change; not compared with it"),
    ],
)
def test_the_commit_that_a_summary_keeps_is_told(empty, commit, said):
    source = {"kind": "hub", "id": "owner/set", "revision": "main"}
    node = empty.shared("corpus", "own", {"source": source}, {}, summary={"commit": commit})
    (finding,) = empty.findings(key=("corpus", node.name))
    assert finding.said == f"read from the hub's owner/set {said}"


@pytest.mark.parametrize("folder", ["recipes", "recipes/tiny"], ids=["of old", "of a study"])
@pytest.mark.parametrize("content", ["as it was", "as it is now", None])
def test_a_corpus_read_from_files_is_compared_with_them_where_they_lie(empty, tmp_path, content, folder):
    path = tmp_path / "text.jsonl"
    path.write_text("as it was")
    node = corpus_of(empty, {"kind": "files", "names": [path.name], "sha256": [file_digest(path)]})
    job = Job("corpus", f"corpus-{node.name}", (node,), {}, {"files": [str(path)]})
    (empty.root / folder).mkdir(parents=True)
    (empty.root / folder / f"{job.name}.json").write_text(json.dumps(job.to_json()))
    path.unlink() if content is None else path.write_text(content)
    said = {
        "as it was": [],
        "as it is now": [f"source      corpus/{node.name}: its source {path} is no longer the file that was read"],
        None: [f"note        corpus/{node.name}: {NOT_COMPARED.format('text.jsonl')}"],
    }
    assert [str(finding) for finding in empty.findings(key=("corpus", node.name))] == said[content]


def test_sources_in_the_home_of_another_user_do_not_end_the_audit(empty, tmp_path, monkeypatch):
    """Of whom the documents are, their files need not be for all who read the results."""
    source = {"names": ["home"], "sha256": ["0" * 64]}
    pictures = {"kind": "folder", "train": "train", "test": "val", "sha256": "0" * 64}
    nodes = [corpus_of(empty, {"kind": "files", **source}), empty.shared("images", "own", {"source": pictures}, {})]
    home = tmp_path / "home"
    for node, key in zip(nodes, ("files", f"images/{nodes[1].name}"), strict=True):
        job = Job(node.kind, f"{node.kind}-{node.name}", (node,), {}, {key: [str(home)]})
        write_json(empty.root / "recipes" / f"{job.name}.json", job.to_json())

    def closed(known):
        def call(path, *arguments, **named):
            if path == home:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return known(path, *arguments, **named)

        return call

    for name in ("is_file", "is_dir", "stat", "open", "iterdir"):
        monkeypatch.setattr(Path, name, closed(getattr(Path, name)))
    for node, what in zip(nodes, ("home", "folder of pictures"), strict=True):
        (found,) = empty.findings(key=(node.kind, node.name))
        assert str(found) == f"note        {node.kind}/{node.name}: {NOT_COMPARED.format(what)}"


def located(lab, node, key, places):
    """Write the RECIPE file that says where the sources of an artifact lie."""
    job = Job(node.kind, f"{node.kind}-{node.name}", (node,), {}, {key.format(node.name): list(map(str, places))})
    (lab.root / "recipes").mkdir()
    (lab.root / "recipes" / f"{job.name}.json").write_text(json.dumps(job.to_json()))


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("kind", ["directory", "gguf", "calibration", "tokenizer", "idx", "gzipped"])
def test_what_was_read_by_digest_is_compared_with_it(empty, tmp_path, kind, changed):
    path = tmp_path / {
        "tokenizer": "tokenizer.json",
        "idx": "t10k-labels-idx1-ubyte",
        "gzipped": "t10k-labels-idx1-ubyte.gz",
    }.get(kind, "model.gguf")
    path.write_text("as it was")
    digest = file_digest(path)
    files = {"names": [path.name], "sha256": [digest]}
    folder = tmp_path / "others"
    folder.mkdir()
    images = [folder / name for name in IDX_FILES[:3]]
    for other in images:
        other.write_text(other.name)
    digests = [file_digest(other) for other in images] + [digest]
    idx = ({"source": {"kind": "idx", "sha256": digests}}, "images/{}", [*images, path])
    recipe, key, places = {
        "directory": ({"source": {"kind": "directory", **files}}, "some", [tmp_path]),
        "gguf": ({"source": {"kind": "gguf", "sha256": digest}}, "some", [path]),
        "calibration": ({"calibration": {"kind": "documents", "source": {"kind": "files", **files}}}, "some", [path]),
        "tokenizer": ({"tokenizer": {"kind": "local", **files}}, "tokenizer", [tmp_path]),
        "idx": idx,
        "gzipped": idx,
    }[kind]
    node = empty.shared("pretrained", "own", recipe, {})
    located(empty, node, key, places)
    path.write_text("as it is now" if changed else "as it was")
    said = [f"source      pretrained/{node.name}: its source {path} is no longer the file that was read"]
    assert [str(finding) for finding in empty.findings(key=("pretrained", node.name))] == (said if changed else [])


@pytest.mark.parametrize("change", [None, "a picture of another size", "one more picture", "a class is gone", "moved"])
def test_folders_of_pictures_are_compared_by_names_and_sizes(empty, tmp_path, change):
    root = tmp_path / "pictures"
    for place in (f"{split}/{name}" for split in ("train", "val") for name in "ab"):
        (root / place).mkdir(parents=True)
        (root / place / "0.png").write_text("a picture")
    source = {"kind": "folder", "train": "train", "test": "val", "sha256": listing_digest(root, ("train", "val"))}
    node = empty.shared("images", "pictures", {"source": source}, {})
    located(empty, node, "images/{}", [root])
    match change:
        case "a picture of another size":
            (root / "val" / "a" / "0.png").write_text("another picture")
        case "one more picture":
            (root / "train" / "b" / "1.png").write_text("a picture")
        case "a class is gone":
            (root / "train" / "b" / "0.png").unlink()
        case "moved":
            root.rename(tmp_path / "elsewhere")
    held = f"its source {root} no longer has the pictures that were read, by their names and sizes"
    noted = NOT_COMPARED.format("folder of pictures")
    lines = {None: [], "moved": [f"note        images/{node.name}: {noted}"]}
    found = [str(finding) for finding in empty.findings(key=("images", node.name))]
    assert found == lines.get(change, [f"source      images/{node.name}: {held}"])


COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("kind", "recipe", "said"),
    [
        (
            "tokenizer",
            {"tokenizer": {"kind": "hub", "id": "owner/model", "revision": COMMIT}},
            f"read from the hub's owner/model at {COMMIT}; not compared with it",
        ),
        (
            "finetuned",
            {"hub": {"id": "owner/model", "revision": "main", "parameters": 9}},
            "read from the hub's owner/model at main, which is no commit: what it names may change; "
            "not compared with it",
        ),
        (
            "images",
            {"source": {"kind": "digits", "test_fraction": 0.2}},
            "its digits came with scikit-learn, whose version the record has; not compared with them",
        ),
        (
            "corpus",
            {"source": {"kind": "carved in stone"}},
            "its source of kind 'carved in stone' is none that the audit knows; not compared with it",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_cannot_be_compared_is_a_note(empty, kind, recipe, said):
    node = empty.shared(kind, "own", recipe, {})
    assert [str(finding) for finding in empty.findings(key=(kind, node.name))] == [
        f"note        {kind}/{node.name}: {said}"
    ]


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        ("tokenizer", {"tokenizer": {"kind": "bpe", "vocabulary_size": 300}}),
        ("tokenizer", {"tokenizer": {"kind": "pretrained", "end_of_text": None}}),
        ("conversations", {"source": {"kind": "embedded", "examples": 8, "seed": 0}}),
        ("finetuned", {"hub": None}),
    ],
)
def test_what_is_made_from_parents_alone_has_no_source(empty, kind, recipe):
    node = empty.shared(kind, "own", recipe, {})
    assert empty.findings(key=(kind, node.name)) == []


def test_another_embedded_corpus_is_a_finding(empty):
    node = corpus_of(empty, {"kind": "embedded", "name": "english", "sha256": "0" * 64})
    (line,) = empty.held(key=("corpus", node.name))
    assert line.endswith("english.jsonl.xz is no longer the file that was read")
