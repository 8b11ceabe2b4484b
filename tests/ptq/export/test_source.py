"""From a quantized artifact back to the model it was made from."""

import json

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.artifacts.manifest import Manifest, describe_files, write_manifest
from coolbits.ptq.export.source import find_source, weights_digests


def artifact(root, kind, name, parents=None, summary=None):
    directory = root / kind / name
    directory.mkdir(parents=True)
    made = Manifest(kind, name, "f", {"method": "rtn"}, parents or {}, {}, summary or {})
    write_manifest(directory, made, {})
    return directory, made


def reference(made):
    return {"kind": made.kind, "name": made.name, "fingerprint": "f", "digest": made.digest}


@pytest.fixture
def checkpoint(tmp_path):
    return artifact(tmp_path / "results", "checkpoint", "run/step_0000100")


@pytest.fixture
def quantized(tmp_path, checkpoint):
    directory, _ = artifact(tmp_path / "results", "quantized", "rtn-run", {"model": reference(checkpoint[1])})
    return directory


def test_the_parent_is_found_below_the_same_results_folder(quantized, checkpoint):
    source = find_source(quantized, None)
    assert source.model == checkpoint[0]
    assert source.provenance["recipe"] == {"method": "rtn"}
    assert source.provenance["model"]["name"] == "run/step_0000100"


def test_links_inside_results_do_not_hide_the_parent(quantized, checkpoint, tmp_path):
    """The disk was full: an artifact, or all of its kind, lies elsewhere, and a link to it in the results."""
    latest = tmp_path / "latest"
    latest.symlink_to(quantized)
    assert find_source(latest, None).model == checkpoint[0]
    for place in (quantized, quantized.parent):
        place.rename(tmp_path / f"big-{place.name}")
        place.symlink_to(tmp_path / f"big-{place.name}")
        assert find_source(quantized, None).model == checkpoint[0]


def test_a_model_that_was_moved_is_named(quantized, checkpoint, tmp_path):
    moved = checkpoint[0].rename(tmp_path / "moved")
    with pytest.raises(CoolbitsError, match="say with --model"):
        find_source(quantized, None)
    assert find_source(quantized, moved).model == moved


def test_another_model_is_refused(quantized, tmp_path):
    other, _ = artifact(tmp_path, "checkpoint", "other")
    with pytest.raises(CoolbitsError, match=r"another model than the one .* was made from \(run/step_0000100\)"):
        find_source(quantized, other)


def test_artifacts_of_other_kinds_and_diverged_ones_have_nothing_to_export(checkpoint, tmp_path):
    with pytest.raises(CoolbitsError, match="kind 'checkpoint'; only quantized"):
        find_source(checkpoint[0], None)
    diverged, _ = artifact(tmp_path, "quantized", "lost", summary={"outcome": "diverged"})
    with pytest.raises(CoolbitsError, match="diverged, so there are no weights"):
        find_source(diverged, None)


def test_each_file_of_weights_has_a_digest(tmp_path):
    for name in ("model-1.safetensors", "model-2.safetensors", "state.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    write_json(
        tmp_path / "model.safetensors.index.json",
        {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}},
    )
    assert len(set(weights_digests(tmp_path).values())) == 2


@pytest.fixture(params=["by coolbits quantize", "by a study"])
def written(request, tmp_path, checkpoint):
    """A folder with codes and what a list says of them, AWQ's other parameters among them."""
    directory = tmp_path / "results" / "quantized" / "awq-run"
    directory.mkdir(parents=True)
    for name in ("codes.safetensors", "layout.json", "replaced.safetensors"):
        (directory / name).write_text(name)
    files = describe_files(directory)
    if request.param == "by a study":
        parents = {"model": reference(checkpoint[1])}
        write_manifest(directory, Manifest("quantized", "awq-run", "f", {}, parents, files), {})
    else:
        origin = {"directory": str(checkpoint[0]), "sha256": {}}
        write_json(directory / "quantization.json", {"model": origin, "recipe": {}, "files": files})
    return directory


def test_codes_that_are_as_they_were_written_are_a_source(written, checkpoint):
    assert find_source(written, None).model == checkpoint[0]


@pytest.mark.parametrize("name", ["codes.safetensors", "layout.json", "replaced.safetensors"])
def test_codes_that_changed_or_went_since_are_refused(written, name):
    """Without the parameters that AWQ changed, what is exported would be no quantized model at all."""
    (written / name).write_text("changed")
    with pytest.raises(CoolbitsError, match=rf"{name}: not the bytes that were written"):
        find_source(written, None)
    (written / name).unlink()
    with pytest.raises(CoolbitsError, match=rf"{name}: missing, so the model would be another one"):
        find_source(written, None)


def test_a_file_that_the_list_does_not_have_is_none_of_what_was_written(written):
    """RTN changes no other parameters; those of another run would be put into its model."""
    record = written / "quantization.json"
    record = record if record.is_file() else written / "manifest.json"
    told = json.loads(record.read_text())
    del told["files"]["replaced.safetensors"]
    record.write_text(json.dumps(told))
    with pytest.raises(CoolbitsError, match=r"replaced\.safetensors: not the bytes that were written"):
        find_source(written, None)
    (written / "replaced.safetensors").unlink()
    assert find_source(written, None).directory == written


def test_a_model_that_went_since_is_asked_for(written, checkpoint, tmp_path):
    moved = checkpoint[0].rename(tmp_path / "moved")
    with pytest.raises(CoolbitsError, match="no such folder; say with --model where"):
        find_source(written, None)
    assert find_source(written, moved).model == moved


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_record_that_says_nothing_is_refused(tmp_path, content):
    (tmp_path / "quantization.json").write_text(content)
    with pytest.raises(CoolbitsError, match=r"quantization\.json: cannot be read as what `coolbits quantize` writes"):
        find_source(tmp_path, None)
