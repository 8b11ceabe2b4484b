"""Models that `coolbits quantize` refuses, and what it is asked to do with them."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--recipe rtn-w3-g48",
            "grid.group_size: 48 does not divide the 32 inputs of "
            "gpt_neox.layers.0.attention.query_key_value; take a divisor, or null for one scale a row",
        ),
        (
            "--recipe quantizer.yaml",
            "quantizer.yaml: method.grid: unknown key 'group_sise'; allowed: bits, group_size, symmetric, search",
        ),
        (
            "--recipe gptq-w4-g16 --sequence-length 64",
            "--sequence-length: sequences of 64 tokens, but the model has 16 positions",
        ),
        (
            "--recipe gptq-w4-g16 --sequences 1",
            "calibration.sequences: 1 sequences of up to 16 tokens, 16 in all, are not more than the 64 "
            "inputs of gpt_neox.layers.0.mlp.dense_4h_to_h; take at least 5 sequences",
        ),
        (
            "--recipe gptq-w4-g16 --calibration gone.txt",
            "--calibration gone.txt: no such file; allowed are embedded, random, a .txt, .jsonl or .parquet "
            "file, a folder with tokens.safetensors, or a dataset of the hub (owner/name)",
        ),
        (
            "--recipe gptq-w4-g16 --calibration few.txt",
            "--calibration few.txt: 128 sequences of 16 tokens are wanted, there are 0; give more text, or "
            "fewer by --sequences or --sequence-length",
        ),
        (
            "--recipe gptq-w4-g16 --calibration latin.txt",
            "latin.txt, line 1: not valid UTF-8 (invalid continuation byte)",
        ),
        (
            "--recipe gptq-w4-g16 --calibration a/b",
            "dataset a/b: the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and "
            "no copy is cached",
        ),
        ("--recipe bnb-nf4 --export gptq", "--export: the format gptq cannot hold this model: ..."),
        (
            "--recipe rtn-w3-g16 --out study.yaml/o",
            "--out study.yaml/o: study.yaml: a file is where a folder should be",
        ),
    ],
    ids=lambda value: f"{value:.60}",
)
def test_a_model_is_not_quantized(refused, model, here, arguments, message):
    (here / "quantizer.yaml").write_text("method: {kind: rtn, grid: {bits: 3, group_sise: 16}}\n")
    (here / "few.txt").write_text("few words")
    (here / "latin.txt").write_bytes(b"caf\xe9 au lait")
    out = () if "--out" in arguments else ("--out", "o")
    refused("quantize", "--model", "model", *arguments.split(), *out, expected=message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "config.json",
            "{",
            "model/config.json: cannot be read as part of a model (Expecting property name enclosed in double "
            "quotes: ...)",
        ),
        ("config.json", '{"quantization_config": {}}', "--model model: quantized already, as its config.json says"),
        (
            "model.safetensors",
            "",
            "model/model.safetensors: cannot be read as part of a model (...); safetensors are expected",
        ),
        ("tokenizer.json", "{", "model: the tokenizer cannot be opened (...)"),
    ],
)
def test_a_broken_model_is_not_quantized(refused, model, name, content, message):
    (model / name).write_text(content)
    refused("quantize", "--model", "model", "--recipe", "gptq-w4-g16", "--out", "o", expected=message)
