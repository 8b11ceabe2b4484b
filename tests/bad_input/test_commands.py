"""Calls of the command line that are refused."""

import json

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND; see coolbits --help"),
        ("fly", "argument COMMAND: invalid choice: 'fly' (choose from ...); see coolbits --help"),
        ("plan", "the following arguments are required: STUDY; see coolbits plan --help"),
        ("plan study.yaml other.yaml", "unrecognized arguments: other.yaml; see coolbits --help"),
        ("plan study.yaml --jsn", "unrecognized arguments: --jsn; see coolbits --help"),
        ("plan study.yaml --results", "argument --results: expected one argument; see coolbits plan --help"),
        ("plan study.yaml --results study.yaml", "study.yaml: a file, not a results folder"),
        ("corpus", "the following arguments are required: recipe, out; see coolbits corpus --help"),
        ("corpus job.json", "the following arguments are required: out; see coolbits corpus --help"),
        ("corpus job.json results", "job.json: no such recipe file"),
        ("corpus . results", ".: not a recipe file (Is a directory)"),
        (
            "corpus corpus.jsonl results",
            "corpus.jsonl: not a recipe file (Extra data: ...); `snakemake` writes these, one a job",
        ),
        (
            "corpus study.yaml results --log logs/log",
            "study.yaml: not a recipe file (Expecting value: ...); `snakemake` writes these, one a job",
        ),
        (
            "corpus a b --threads 0",
            "argument --threads: should be a whole number from 1; found '0'; see coolbits corpus --help",
        ),
        (
            "corpus a b --threads x",
            "argument --threads: should be a whole number from 1; found 'x'; see coolbits corpus --help",
        ),
        (
            "corpus a b --threads -1",
            "argument --threads: should be a whole number from 1; found '-1'; see coolbits corpus --help",
        ),
        ("accept .", "the following arguments are required: --why; see coolbits accept --help"),
        ("accept . --why=", "argument --why: should be a reason; found nothing; see coolbits accept --help"),
        (
            "accept . --why tired",
            ".: a folder without manifest.json, so no artifact; those are the folders results/KIND/NAME",
        ),
        (
            "accept study.yaml --why tired",
            "study.yaml: a file, so no artifact; those are the folders results/KIND/NAME",
        ),
        ("audit", "the following arguments are required: TARGET; see coolbits audit --help"),
        ("audit gone", "gone: no such file or folder"),
        ("audit .", ".: no artifacts in it; name a results folder, or a folder or file in one"),
        (
            "audit study.yaml",
            "study.yaml: neither in an artifact nor a figure's SVG or PNG with a coolbits digest in it",
        ),
        ("explain .", ".: no artifacts in it; name a results folder, or a folder or file in one"),
        ("diff . gone", ".: no artifacts in it; name a results folder, or a folder or file in one"),
        ("diff .", "the following arguments are required: AFTER; see coolbits diff --help"),
        ("gc", "the following arguments are required: STUDY; see coolbits gc --help"),
        ("gc study.yaml", "results: no results folder; say with --results where it is"),
        ("gc study.yaml --results study.yaml", "study.yaml: no results folder; say with --results where it is"),
        ("gc gone.yaml --results .", "gone.yaml: no such study file"),
        ("crate crate.zip --study gone.yaml", "gone.yaml: no such study file"),
        (
            "crate crate.tar --study study.yaml",
            "crate.tar: a crate is written as one zip file; give a name that ends in .zip",
        ),
        ("crate gone/crate.zip --study study.yaml", "gone/crate.zip: no such folder to write it in"),
        ("crate crate.zip --study study.yaml", "results: no results folder; say with --results where it is"),
        (
            "crate crate.zip --without-large x",
            "argument --without-large: should be a number of megabytes, from 0; found 'x'; see coolbits crate --help",
        ),
        (
            "crate crate.zip --without-large nan",
            "argument --without-large: should be a number of megabytes, from 0; found 'nan'; see coolbits crate --help",
        ),
        (
            "crate crate.zip --no-files --without-large 1",
            "argument --without-large: not allowed with argument --no-files; see coolbits crate --help",
        ),
        (
            "crate crate.zip --study study.yaml --license MIT",
            "--license MIT: not a URL, such as https://spdx.org/licenses/MIT",
        ),
        (
            "lineage study.yaml",
            "study.yaml: neither in an artifact nor a figure's SVG or PNG with a coolbits digest in it",
        ),
        ("settings gone.yaml", "gone.yaml: no such study file"),
        ("settings study.yaml --out folder", "--out folder: a folder is where a file should be"),
        (
            "settings study.yaml --out study.yaml/page.html",
            "--out study.yaml/page.html: study.yaml: a file is where a folder should be",
        ),
        ("quantize", "the following arguments are required: --model, --recipe, --out; see coolbits quantize --help"),
        ("quantize --model . --recipe rtn-w3-g16 --out .", ".: exists already; choose another --out"),
        ("quantize --model . --recipe rtn-w9-g16 --out o", "quantizer 'rtn-w9-g16': no such preset; allowed are ..."),
        ("quantize --model . --recipe gone.yaml --out o", "--recipe gone.yaml: no such file"),
        (
            "quantize --model . --recipe study.yaml --out o",
            "study.yaml: unknown key 'study'; allowed: method, rotation, activations, head, save_model",
        ),
        (
            "quantize --model gone --recipe rtn-w3-g16 --out o",
            "--model gone: no such folder, and no hub id (owner/name)",
        ),
        (
            "quantize --model a/b --recipe rtn-w3-g16 --out o",
            "--model a/b: no such folder; as a hub id, model a/b: the Hugging Face hub cannot be reached (no "
            "network, or HF_HUB_OFFLINE is set) and no copy is cached",
        ),
        (
            "quantize --model . --recipe rtn-w3-g16 --out o",
            "config.json: no such file; a model is saved as config.json and model.safetensors",
        ),
        (
            "quantize --model . --recipe a --out o --seed -1",
            "argument --seed: should be a whole number from 0; found '-1'; see coolbits quantize --help",
        ),
        (
            "quantize --model . --recipe a --out o --sequences 0",
            "argument --sequences: should be a whole number from 1; found '0'; see coolbits quantize --help",
        ),
        (
            "quantize --model . --recipe a --out o --sequence-length 1",
            "argument --sequence-length: should be a whole number from 2; found '1'; see coolbits quantize --help",
        ),
        (
            "quantize --model . --recipe a --out o --device tpu",
            "argument --device: invalid choice: 'tpu' (choose from ...); see coolbits quantize --help",
        ),
        (
            "export . --format onnx --out o",
            "argument --format: invalid choice: 'onnx' (choose from ...); see coolbits export --help",
        ),
        (
            "export gone --format gptq --out o",
            "gone: no such folder; name a quantized artifact, as in results/quantized/*",
        ),
        (
            "export . --format gptq --out o",
            ".: a folder without manifest.json, so no artifact; those are the folders results/KIND/NAME",
        ),
        ("export . --format gptq --out .", ".: exists already; choose another --out"),
    ],
    ids=lambda value: f"{value:.60}",
)
def test_a_call_with_one_mistake(refused, here, write_study, arguments, message):
    write_study("study", "tiny")
    (here / "folder").mkdir()
    refused(*arguments.split(), expected=message)


@pytest.mark.slow
def test_results_that_do_not_fit_the_command(refused, folder):
    checkpoint, quantized = (
        folder.artifacts(job)[0].relative_to(folder.path) for job in ("checkpoint-0", "quantized-0")
    )
    recipe = folder.recipe("corpus-0").relative_to(folder.path)
    export = ("--format", "gptq", "--out")
    for arguments, message in {
        ("table", recipe, "results"): f"{recipe}: a recipe of kind 'corpus', but the command is 'table'",
        ("corpus", recipe, "study.yaml"): "study.yaml: a file, not a results folder",
        (
            "accept",
            checkpoint,
            "recipes",
            "--why",
            "tired",
        ): "recipes: a folder without manifest.json, so no artifact; those are the folders results/KIND/NAME",
        ("explain", "results"): "results: ... artifacts; name the folder of one, with a manifest.json in it",
        ("diff", checkpoint, quantized): f"{quantized}: of kind 'quantized', but {checkpoint} is of kind 'checkpoint'",
        (
            "export",
            checkpoint,
            *export,
            "o",
        ): f"{checkpoint}: an artifact of kind 'checkpoint'; only quantized models are exported",
        ("export", quantized, *export, "results"): "results: exists already; choose another --out",
        (
            "export",
            quantized,
            *export,
            "o",
            "--model",
            "gone",
        ): "gone: no such folder; say with --model where the model is that was quantized",
        (
            "crate",
            "results/o.zip",
            "--study",
            "study.yaml",
        ): "results/o.zip: in the results folder, which has only what the workflow makes; write it elsewhere",
        (
            "crate",
            "o.zip",
            "--study",
            "study.yaml",
        ): "results: ... artifacts that study.yaml wants are missing or other...",
    }.items():
        refused(*arguments, expected=message)


@pytest.mark.slow
def test_a_manifest_that_is_none(refused, folder):
    checkpoint = folder.artifacts("checkpoint-0")[0].relative_to(folder.path)
    for content in ("", "[]", "{}", json.dumps({"kind": 5})):
        (folder.path / checkpoint / "manifest.json").write_text(content)
        expected = f"{checkpoint}/manifest.json: not a readable manifest (...); delete it to have it made again"
        refused("accept", checkpoint, "--why", "tired", expected=expected)
