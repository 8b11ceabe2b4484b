"""Pickles, which run code in whoever loads them, are not loaded, whatever they are called and wherever they lie."""

import pickle

import pytest
import torch

pytestmark = pytest.mark.slow

UNREADABLE = "...model.safetensors: cannot be read as part of a model (...); safetensors are expected"
MISSING = "...model.safetensors: no such file; a model is saved as config.json and model.safetensors"
NAMES = pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])


def replace_weights(folder, model, name):
    """Let a model's only weights be a pickle under this name."""
    (model / "model.safetensors").unlink()
    folder.plant(model / name)


@NAMES
def test_whoever_loads_one_runs_its_code(folder, name):
    folder.plant(folder.path / name)
    with (folder.path / name).open("rb") as file:
        torch.load(file, weights_only=False) if name.endswith(".bin") else pickle.load(file)
    assert (folder.path / "pwned").exists()


@NAMES
@pytest.mark.parametrize("job", ["checkpoint-1", "average-0", "quantized-0", "evaluation-0"])
def test_a_job_does_not(stage_refused, folder, job, name):
    said = {
        "checkpoint-1": (
            "...model.safetensors: not readable as safetensors (...); delete its directory to train again",
            "...model.safetensors: no such file; delete its directory to train again",
        ),
        "average-0": (UNREADABLE, "...model.safetensors: no such file"),
    }
    unreadable, missing = said.get(job, (UNREADABLE, MISSING))
    checkpoint = folder.artifacts("checkpoint-0")[0]
    replace_weights(folder, checkpoint, name)
    folder.reseal(checkpoint)
    stage_refused(job, unreadable if name == "model.safetensors" else missing)
    assert not (folder.path / "pwned").exists()


@NAMES
def test_quantize_does_not(refused, folder, model, name):
    replace_weights(folder, model, name)
    message = UNREADABLE if name == "model.safetensors" else MISSING
    refused("quantize", "--model", "model", "--recipe", "rtn-w3-g16", "--out", "o", expected=message)
    assert not (folder.path / "pwned").exists()


def test_a_plan_wants_safetensors(refused, folder, model, write_study):
    replace_weights(folder, model, "pytorch_model.bin")
    source = {"kind": "directory", "path": "model"}
    write_study("pretrained", {"given": {"source": source, "parameters": 5, "tokens": "1M"}})
    expected = (
        "study.yaml: pretrained.given.source.path: ...model holds no safetensors; weights are read from nothing else"
    )
    refused("plan", "study.yaml", expected=expected)
    assert not (folder.path / "pwned").exists()
