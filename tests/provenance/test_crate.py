"""The crate: what made each artifact from what and when, each file as its digest says, and nothing invented."""

import hashlib
import json
import shutil
import warnings
import zipfile
from datetime import datetime
from urllib.parse import unquote

import pytest
from rocrate.rocrate import ROCrate

from coolbits import cli
from coolbits.artifacts.errors import CoolbitsError
from coolbits.provenance.crate.contents import find_workflow
from coolbits.provenance.crate.write import Order, write_crate

METADATA = "ro-crate-metadata.json"


class Crate:
    """A crate as its readers see it: the zip file, and the entities of its metadata by @id."""

    def __init__(self, path):
        self.zip = zipfile.ZipFile(path)
        self.names = {name for name in self.zip.namelist() if not name.endswith("/")}
        self.entities = {entity["@id"]: entity for entity in json.loads(self.zip.read(METADATA))["@graph"]}

    def of_type(self, kind):
        return [entity for entity in self.entities.values() if kind in listed(entity["@type"])]

    def runs(self):
        """The action that made each artifact, by the artifact's @id."""
        return {entity["result"]["@id"]: entity for entity in self.of_type("CreateAction") if entity["@id"] != "#run"}


def listed(value):
    return value if isinstance(value, list) else [value]


def ids(value):
    return [reference["@id"] for reference in listed(value)]


def label(node):
    return f"results/{node.kind}/{node.name}/"


@pytest.fixture
def pack(empty, clone, tmp_path):
    """Write the crate of the fabricated study; `.plan` and `.lab` are what it was written of."""
    plan = clone()

    def call(name="out.zip", **options):
        place = empty.root.parent
        order = Order(plan, place / "tiny.yaml", empty.root, place, **options)
        summary = write_crate(order, tmp_path / name)
        return summary, Crate(tmp_path / name)

    call.plan, call.lab = plan, empty
    return call


def test_each_artifact_has_the_action_that_made_it_from_its_parents(pack):
    summary, crate = pack()
    runs = crate.runs()
    assert summary.artifacts == len(pack.plan.nodes) == len(runs)
    for node in pack.plan.nodes:
        run = runs[label(node)]
        parents = {name for name in ids(run["object"]) if name.startswith("results/")}
        assert parents == {label(ref) for ref in node.parents.values()}
        assert ids(run["instrument"]) == [f"#coolbits-{node.kind}"]
        assert crate.entities[label(node)]["identifier"] == node.fingerprint


def test_times_are_those_of_the_record(pack):
    _, crate = pack()
    node = pack.plan.nodes[0]
    record = json.loads((node.directory(pack.lab.root) / "record.json").read_text())
    run = crate.runs()[label(node)]
    started, ended = (datetime.fromisoformat(run[name]) for name in ("startTime", "endTime"))
    assert abs((started - datetime.fromisoformat(record["started"])).total_seconds()) < 0.001
    assert (ended - started).total_seconds() == pytest.approx(record["seconds"], abs=0.002)
    assert crate.entities["./"]["datePublished"] == max(run["endTime"] for run in crate.runs().values())


def test_every_file_has_the_size_and_digest_that_is_said_of_it(pack):
    summary, crate = pack()
    described = {unquote(entity["@id"]): entity for entity in crate.of_type("File")}
    assert crate.names == described.keys() | {METADATA, "src/coolbits/cli.py"}
    assert summary.files == len(crate.names) - 1
    for name, entity in described.items():
        content = crate.zip.read(name)
        assert (entity["sha256"], entity["contentSize"]) == (hashlib.sha256(content).hexdigest(), str(len(content)))


def test_every_reference_leads_to_an_entity_and_every_data_entity_is_a_part_of_the_whole(pack):
    _, crate = pack(largest=100)
    found = {name for entity in crate.entities.values() for value in entity.values() for name in names_in(value)}
    assert {name for name in found if not name.startswith("http")} <= crate.entities.keys()
    parts, waiting = set(), ["./"]
    while waiting:
        new = set(ids(crate.entities[waiting.pop()].get("hasPart", []))) - parts
        parts |= new
        waiting.extend(new)
    data = {entity["@id"] for kind in ("File", "Dataset") for entity in crate.of_type(kind)}
    assert data - parts == {"./"}


def names_in(value):
    return [item["@id"] for item in listed(value) if isinstance(item, dict)]


def test_steps_are_kinds_and_their_executions_the_jobs_of_the_plan(pack):
    _, crate = pack()
    kinds = list(dict.fromkeys(node.kind for node in pack.plan.nodes))
    assert ids(crate.entities["Snakefile"]["step"]) == [f"#step/{kind}" for kind in kinds]
    assert [crate.entities[f"#step/{kind}"]["position"] for kind in kinds] == [
        str(place) for place in range(len(kinds))
    ]
    jobs = {job.name: job for kind in kinds for job in pack.plan.jobs(kind)}
    control = {entity["name"].removeprefix("job "): entity for entity in crate.of_type("ControlAction")}
    assert control.keys() == jobs.keys()
    for name, job in jobs.items():
        assert ids(control[name]["object"]) == [f"#run/{job.kind}/{node.name}" for node in job.nodes]
        assert ids(control[name]["instrument"]) == [f"#step/{job.kind}"]
    [engine] = crate.of_type("OrganizeAction")
    assert set(ids(engine["object"])) == {entity["@id"] for entity in control.values()}


def test_fields_of_recipes_are_values_of_parameters(pack):
    _, crate = pack()
    parameter = "#recipe/checkpoint/trajectory.peak_lr"
    rates = [entity for entity in crate.of_type("PropertyValue") if ids(entity.get("exampleOfWork", [])) == [parameter]]
    assert sorted(rate["value"] for rate in rates) == [0.01, 1.0]
    assert crate.entities[parameter]["additionalType"] == "Float"
    users = [run for rate in rates for run in crate.runs().values() if rate["@id"] in ids(run["object"])]
    assert len(users) == sum(node.kind == "checkpoint" for node in pack.plan.nodes)


def test_what_a_kind_takes_is_connected_to_what_gives_it(pack):
    _, crate = pack()
    found = {
        (*ids(one["sourceParameter"]), *ids(one["targetParameter"])) for one in crate.of_type("ParameterConnection")
    }
    assert ("#output/quantized", "#input/evaluation/quantized") in found
    assert ("#output/checkpoint", "#input/checkpoint/start") in found
    assert len(found) == len(
        {(ref.kind, node.kind, role.split(".")[0]) for node in pack.plan.nodes for role, ref in node.parents.items()}
    )


def test_software_and_commit_are_those_of_the_records(pack):
    _, crate = pack()
    [environment] = ids(crate.entities["#coolbits-quantized"]["softwareRequirements"])
    packages = [crate.entities[name] for name in ids(crate.entities[environment]["softwareRequirements"])]
    assert {one["name"]: one["softwareVersion"] for one in packages} == pack.lab.environment["packages"]
    assert crate.entities["Snakefile"]["version"] == "c" * 40


def test_a_tree_with_changes_is_told(pack):
    def change(record):
        record["environment"]["git"]["dirty"] = True

    pack.lab.rewrite(pack.lab.one("corpus") / "record.json", change)
    _, crate = pack()
    assert crate.entities["Snakefile"]["version"] == f"{'c' * 40}, {'c' * 40} with uncommitted changes"
    assert "with uncommitted changes" in crate.runs()[label(pack.plan.nodes[0])]["description"]


def test_pictures_bear_their_caption_and_are_what_the_study_results_in(pack):
    _, crate = pack()
    pictures = {entity["@id"]: entity["caption"] for entity in crate.of_type("ImageObject")}
    folder = "results/figure/tiny/peak-rate"
    assert pictures == dict.fromkeys([f"{folder}/peak-rate.png", f"{folder}/peak-rate.svg"], "Higher rates help.")
    assert ids(crate.entities["#run"]["result"])[:2] == sorted(pictures)
    assert ids(crate.entities["#run"]["object"]) == ["tiny.yaml"]


def test_what_diverged_says_so_though_its_action_completed(pack):
    _, crate = pack()
    said = {name: run for name, run in crate.runs().items() if "diverged at step 7" in run["description"]}
    assert len(said) == sum("-lr1-" in node.name for node in pack.plan.nodes) > 0
    for name, run in said.items():
        assert run["actionStatus"] == "http://schema.org/CompletedActionStatus"
        assert "diverged at step 7" in crate.entities[name]["description"]
    assert f"{len(said)} of them are of runs that diverged" in crate.entities["./"]["description"]


def test_large_files_are_left_out_with_their_digests(pack):
    _, whole = pack("whole.zip")
    summary, crate = pack(largest=1000)
    large = {name for name in whole.names if name.endswith("data.bin")}
    assert whole.names - crate.names == large
    assert (summary.files_left_out, summary.bytes_left_out) == (len(large), 2000 * len(large))
    for name in large:
        facts = ("sha256", "contentSize", "encodingFormat", "name")
        out, kept = crate.entities[f"#{name}"], whole.entities[name]
        assert [out[fact] for fact in facts] == [kept[fact] for fact in facts]
        assert "left out" in out["description"]


def test_without_files_only_manifests_and_records_are_left(pack):
    _, crate = pack(largest=0)
    kept = {name.rpartition("/")[2] for name in crate.names if name.startswith("results/")}
    assert kept == {"manifest.json", "record.json"}
    assert crate.of_type("ImageObject")


def test_what_was_measured_beside_an_artifact_comes_along(pack):
    node = next(node for node in pack.plan.nodes if node.kind == "checkpoint")
    files = {name: (node.directory(pack.lab.root) / name).read_text() for name in ("data.json", "inner/data.bin")}
    shutil.rmtree(node.directory(pack.lab.root))
    pack.lab.make(node, files | {"throughput.parquet": "fast"})
    _, crate = pack()
    assert crate.zip.read(f"{label(node)}throughput.parquet") == b"fast"
    assert "measured" in crate.entities[f"{label(node)}throughput.parquet"]["description"]


def test_the_same_results_are_the_same_bytes(pack, tmp_path):
    pack("one.zip")
    pack("two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_the_library_reads_it_back(pack, tmp_path):
    pack()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crate = ROCrate(tmp_path / "out.zip")
    assert crate.mainEntity.id == "Snakefile"
    assert crate.root_dataset["license"].id == "https://spdx.org/licenses/MIT"


def remove_artifact(lab):
    shutil.rmtree(lab.one("quantized"))
    return r"1 of 23 artifacts that .*tiny.yaml wants .*: quantized/rtn\S* \(not there\); run `snakemake` first"


def remove_file(lab):
    (lab.one("shards") / "data.json").unlink()
    return r"1 of 23 .*shards/\S* \(data.json: no such file\)"


def shorten_file(lab):
    (lab.one("tokenizer") / "data.json").write_text("")
    return r"1 of 23 .*tokenizer/\S* \(data.json: other size\)"


def flip_bit(lab):
    (lab.one("figure") / "peak-rate.png").write_bytes(b"A picture")
    return r"peak-rate.png: not the bytes of its digest; `coolbits audit` tells more"


def change_manifest(lab):
    lab.rewrite(lab.one("evaluation") / "manifest.json", lambda manifest: manifest["summary"].update(loss=0))
    return r"evaluation/\S* \(manifest.json: not the manifest that record.json has a copy of\)"


def lose_record(lab):
    (lab.one("corpus") / "record.json").unlink()
    return r"corpus/\S* \(record.json: no such file\)"


def stop_clock(lab):
    lab.rewrite(lab.one("corpus") / "record.json", lambda record: record.update(started="yesterday"))
    return r"corpus/\S*: its record says 'yesterday', which is no time"


def remove_results(lab):
    shutil.rmtree(lab.root)
    return r"results: no results folder; say with --results where it is"


def remove_snakefile(lab):
    (lab.root.parent / "Snakefile").unlink()
    return r"no Snakefile in it; say with --workflow in which folder the workflow is"


def remake_parent(lab):
    for name in ("manifest.json", "record.json"):
        lab.rewrite(lab.one("tokenizer") / name, lambda values: values.get("manifest", values)["summary"].update(x=1))
    return r"shards/\S* \(made from another tokenizer/\S*\)"


def test_the_workflow_is_beside_the_results_or_beside_the_link_to_them(empty, tmp_path):
    assert find_workflow(empty.root) == empty.root.parent
    repository, disk = tmp_path / "repository", tmp_path / "disk"
    for folder in (repository, disk / "results"):
        folder.mkdir(parents=True)
    (repository / "results").symlink_to(disk / "results")
    (repository / "Snakefile").write_text("")
    assert find_workflow(repository / "results") == repository


DAMAGES = [
    *(remove_artifact, remove_file, shorten_file, flip_bit, change_manifest, lose_record, stop_clock),
    *(remove_results, remove_snakefile, remake_parent),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_results_are_refused_in_one_sentence_and_nothing_is_written(pack, tmp_path, damage):
    (tmp_path / "out.zip").write_bytes(b"an older crate")
    sentence = damage(pack.lab)
    there = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(CoolbitsError, match=sentence):
        pack()
    assert (tmp_path / "out.zip").read_bytes() == b"an older crate"
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_results_of_another_study_file_are_refused(empty, clone, tmp_path, capsys):
    clone()
    study = tmp_path / "tiny.yaml"
    study.write_text(study.read_text().replace("bits: 3", "bits: 4"))
    arguments = ["crate", str(tmp_path / "out.zip"), "--study", str(study), "--results", str(empty.root)]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert "11 of 23 artifacts" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("out.tar", r"out.tar: a crate is written as one zip file"),
        ("absent/out.zip", r"out.zip: no such folder to write it in"),
        ("results/out.zip", r"out.zip: in the results folder"),
        ("folder.zip", r"folder.zip: a folder"),
    ],
)
def test_places_that_cannot_be_written_are_refused(pack, tmp_path, out, sentence):
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(CoolbitsError, match=sentence):
        pack(out)


def test_a_license_is_a_url(pack):
    with pytest.raises(CoolbitsError, match="--license CC0: not a URL"):
        pack(license="CC0")
    _, crate = pack(license="https://spdx.org/licenses/CC0-1.0")
    assert crate.entities["https://spdx.org/licenses/CC0-1.0"]["name"] == "CC0-1.0"


def test_the_command_says_what_it_packed(empty, clone, tmp_path, capsys, monkeypatch):
    clone("näme mit space.yaml")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["crate", "out.zip", "--study", "näme mit space.yaml", "--without-large", "0.001"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("out.zip: 23 artifacts; ")
    assert second == "left out: 22 files, 44 kB"
    crate = Crate("out.zip")
    assert "näme mit space.yaml" in crate.names
    assert ids(crate.entities["#run"]["object"]) == ["n%C3%A4me%20mit%20space.yaml"]


@pytest.mark.parametrize("size", ["-1", "nan", "much"])
def test_sizes_that_are_none_are_refused(capsys, size):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["crate", "out.zip", f"--without-large={size}"])
    assert "--without-large" in capsys.readouterr().err
