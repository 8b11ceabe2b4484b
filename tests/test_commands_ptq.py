"""`coolbits quantize` and `coolbits export`, as a person meets them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from coolbits import cli, commands_ptq
from coolbits.ptq import standalone_order
from coolbits.ptq.export.model import DTYPES, FORMATS
from coolbits.study.load import load_quantizer


@pytest.fixture(autouse=True)
def unchanged_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=64, **sizes)).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_quantize_prints_a_table_and_where_the_result_is(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("quantize", "--model", checkpoint, "--recipe", "rtn-w4-g32", "--out", out, "--threads", 1) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["layers", "modules", "method"]
    kinds = [line.split()[:3] for line in lines]
    assert ["gpt_neox.layers.*.attention.dense", "2", "rtn"] in kinds
    assert ["all", "8", "rtn"] in kinds
    assert any(line.startswith("size: ") and "5.00 bits a quantized weight" in line for line in lines)
    assert lines[-1].startswith(f"{out}: written")


def test_the_recipe_is_read_once(checkpoint, tmp_path, monkeypatch):
    """What was checked is what is done, whatever happens to the file meanwhile."""
    (tmp_path / "own.yaml").write_text("method: {kind: rtn, grid: {bits: 4}}")
    read = []
    monkeypatch.setattr(standalone_order, "load_quantizer", lambda path: read.append(path) or load_quantizer(path))
    assert run("quantize", "--model", checkpoint, "--recipe", tmp_path / "own.yaml", "--out", tmp_path / "out") == 0
    assert read == [tmp_path / "own.yaml"]


def test_quantize_says_that_the_head_is_untied(checkpoint, tmp_path, capsys):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    tensors = load_file(checkpoint / "model.safetensors")
    tensors.pop("embed_out.weight")
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    asked = ("quantize", "--model", checkpoint, "--recipe", "rtn-w4-g32", "--out")
    assert run(*asked, tmp_path / "plain") == 0
    assert "head" not in capsys.readouterr().out
    assert run(*asked, tmp_path / "head", "--head") == 0
    said = capsys.readouterr().out
    assert "head: untied from the embedding, which keeps its weights" in said
    assert ["lm_head", "1", "rtn"] in [line.split()[:3] for line in said.splitlines()]


def test_quantize_and_export_at_once_or_one_after_the_other_give_the_same_file(checkpoint, tmp_path, capsys):
    out, apart = tmp_path / "out", tmp_path / "apart"
    made = ("quantize", "--model", checkpoint, "--recipe", "rtn-w4-g32", "--out", out, "--export", "compressed-tensors")
    assert run(*made) == 0
    assert "8 layers read back as their codes stand" in capsys.readouterr().out
    assert run("export", out, "--format", "compressed-tensors", "--out", apart) == 0
    name = "model.safetensors"
    assert (out / "compressed-tensors" / name).read_bytes() == (apart / name).read_bytes()


def test_export_says_that_half_precision_rounds(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    run("quantize", "--model", checkpoint, "--recipe", "rtn-w4-g32", "--out", out)
    assert run("export", out, "--format", "gptq", "--out", tmp_path / "half", "--dtype", "float16") == 0
    assert "rounded to float16" in capsys.readouterr().out
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize("missing", ["--model", "--recipe"])
def test_a_mistake_is_one_sentence_and_status_2(checkpoint, tmp_path, capsys, missing):
    given = {"--model": str(checkpoint), "--recipe": "rtn-w4-g32"} | {missing: "nothing"}
    arguments = [part for pair in given.items() for part in pair]
    assert run("quantize", *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("coolbits: ")
    assert "'nothing'" in line or "nothing:" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["rtn-w4-g32", "bnb-nf4", "hqq-w4-g32"])
@pytest.mark.parametrize("option", ["--calibration", "--sequences", "--sequence-length", "--seed"])
def test_an_option_of_the_calibration_is_refused_where_there_is_none(checkpoint, tmp_path, capsys, recipe, option):
    asked = ("quantize", "--model", checkpoint, "--recipe", recipe, "--out", tmp_path / "out")
    value = "random" if option == "--calibration" else 3
    assert run(*asked, option, value) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"coolbits: {option}: ") and "looks at weights alone" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", ["gptq-w4-g32", "rtn-w4-g32"])
def test_a_calibration_named_by_nothing_is_refused(checkpoint, tmp_path, capsys, recipe):
    asked = ("quantize", "--model", checkpoint, "--recipe", recipe, "--out", tmp_path / "out", "--calibration", "")
    assert run(*asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coolbits: --calibration: the source is empty")


def test_the_formats_offered_are_those_there_are():
    assert tuple(FORMATS) == commands_ptq._FORMATS
    assert tuple(DTYPES) == commands_ptq._DTYPES


def test_an_export_of_nothing_is_refused(tmp_path, capsys):
    assert run("export", tmp_path / "none", "--format", "gptq", "--out", tmp_path / "out") == 2
    assert "no such folder" in capsys.readouterr().err
