"""Documents, tokenizers and recipe files that a stage refuses: in one sentence, and no file appears in the results."""

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coolbits.data.formats import read_rows
from coolbits.study.data_choices import SUFFIXES

pytestmark = pytest.mark.slow

Change = Callable[[Any], object]


def documents(content: bytes, name: str = "corpus.jsonl") -> Change:
    """Let the corpus be made of a file with this content."""

    def change(folder):
        path = folder.path / name
        path.write_bytes(content)
        source = {"names": [name], "sha256": [hashlib.sha256(content).hexdigest()]}
        folder.edit("corpus-0", lambda node: node["recipe"]["source"].update(source))
        folder.configure("corpus-0", locations={"files": [str(path)]})

    return change


def recipe(job: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the recipe of every node of a job."""
    return lambda folder: folder.edit(job, lambda node: change(node["recipe"]))


def source(**values: Any) -> Change:
    return recipe("corpus-0", lambda own: own.update(source=values))


def tokenizer(content: str) -> Change:
    """Let the tokenizer be a local one with this tokenizer.json."""

    def change(folder):
        (folder.path / "own").mkdir()
        (folder.path / "own" / "tokenizer.json").write_text(content)
        digest = hashlib.sha256(content.encode()).hexdigest()
        local = {"kind": "local", "names": ["tokenizer.json"], "sha256": [digest]}
        folder.edit("tokenizer-0", lambda node: node.update(recipe={"tokenizer": local}, parents={}))
        folder.configure("tokenizer-0", locations={"tokenizer": [str(folder.path / "own")]})

    return change


def planned_tokenizer(spoil: Change = lambda path: None) -> Change:
    """Let the tokenizer be a local one with the study's own tokenizer.json alone, spoiled after the plan."""

    def change(folder):
        tokenizer((folder.artifacts("tokenizer-0")[0] / "tokenizer.json").read_text())(folder)
        spoil(folder.path / "own" / "tokenizer.json")

    return change


CORPORA = [
    (documents(b""), "data.corpus: no document that is not blank in corpus.jsonl"),
    (documents(b'{"text": " "}\n\n'), "data.corpus: no document that is not blank in corpus.jsonl"),
    (
        documents(b'{"text": "a"}\n'),
        "data.validation_fraction: at 0.2 none of 1 documents is in train; take another fraction or salt, or "
        "more documents",
    ),
    (documents(b'{"text":\n'), "...corpus.jsonl, line 1: not JSON (Expecting value at column 1)"),
    (documents(b"[1]\n"), "...corpus.jsonl, line 1: holds a list; keys and values are expected"),
    (documents(b'{"txt": "a"}\n'), "...corpus.jsonl, line 1: there is no key `text`, only `txt`"),
    (documents(b'{"text": 5}\n'), "...corpus.jsonl, line 1: the key `text` holds a number, not text"),
    (documents(b'{"text": "caf\xe9"}\n'), "...corpus.jsonl, line 1: not valid UTF-8 (invalid continuation byte)"),
    (
        documents(b'{"text": "\\ud800"}\n'),
        "...corpus.jsonl, line 1: the key `text` is not valid UTF-8 (surrogates not allowed)",
    ),
    (documents(b"[" * 100_000), "...corpus.jsonl, line 1: JSON of too many levels, or with too long a number"),
    (
        documents(b'{"text": ' + b"9" * 10_000 + b"}"),
        "...corpus.jsonl, line 1: JSON of too many levels, or with too long a number",
    ),
    (documents(b"caf\xe9", "one.txt"), "...one.txt, line 1: not valid UTF-8 (unexpected end of data)"),
    (
        documents(b"a", "one.jsonl.gz"),
        "...one.jsonl.gz: the packed data is damaged after line 0 (...)",
    ),
    (
        documents(gzip.compress(b'{"text": "a"}\n' * 99)[:20], "one.jsonl.gz"),
        "...one.jsonl.gz: the packed data is damaged after line 0 (...)",
    ),
    (
        documents(b"a", "one.parquet"),
        "...one.parquet: not a readable parquet file (...)",
    ),
    (
        documents(b"a", "one.csv"),
        f"...one.csv: one.csv has none of the suffixes {', '.join(SUFFIXES)}",
    ),
    (
        lambda folder: (folder.path / "corpus.jsonl").write_text("other"),
        "...corpus.jsonl: its SHA-256 is ..., but the recipe's `sha256` is ...",
    ),
    (lambda folder: (folder.path / "corpus.jsonl").unlink(), "...corpus.jsonl: no such file"),
    (
        source(kind="hub", id="a/b"),
        "dataset a/b: the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and no "
        "copy is cached",
    ),
]
TOKENIZERS = [
    (
        recipe("tokenizer-0", lambda own: own["tokenizer"].update(vocabulary_size=50_000)),
        "data.tokenizer.vocabulary_size: the training text gives ... entries of 50000; lower it, raise "
        "`training_bytes` or take a larger corpus",
    ),
    (tokenizer("{"), "...own: the tokenizer cannot be opened (...)"),
    (tokenizer("{}"), "...own: the tokenizer cannot be opened (...)"),
    (
        planned_tokenizer(),
        "data.tokenizer: the local tokenizer names no end-of-text token; give `eos_token` in its tokenizer_config.json",
    ),
    (
        planned_tokenizer(lambda path: path.write_text("{}")),
        "...own/tokenizer.json: its SHA-256 is ..., but the recipe's `sha256` is ...",
    ),
    (planned_tokenizer(Path.unlink), "...own/tokenizer.json: no such file"),
    (
        planned_tokenizer(lambda path: path.with_name("tokenizer_config.json").write_text("{}")),
        "...own/tokenizer_config.json: not among the recipe's `names`, but the tokenizer would be read from it, too",
    ),
    (
        lambda folder: folder.edit(
            "tokenizer-0",
            lambda node: node.update(recipe={"tokenizer": {"kind": "hub", "id": "a/b"}}, parents={}),
        ),
        "tokenizer a/b: the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and no "
        "copy is cached",
    ),
]
ROWS = {"corpus-0": CORPORA, "tokenizer-0": TOKENIZERS}


@pytest.mark.parametrize(
    ("job", "spoil", "message"),
    [pytest.param(job, *row, id=f"{job}: {row[1]:.60}") for job, rows in ROWS.items() for row in rows],
)
def test_data_that_cannot_be_used(stage_refused, folder, job, spoil, message):
    spoil(folder)
    stage_refused(job, message)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffixes_that_a_plan_allows_are_those_that_can_be_read(tmp_path, suffix):
    assert read_rows(tmp_path / f"one{suffix}", f"one{suffix}", "text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda job: job["nodes"][0].update(name="../../pwned"),
            "not a recipe file (the name '../../pwned' leads out of the results folder); `snakemake` writes "
            "these, one a job",
        ),
        (
            lambda job: job["nodes"][0].update(name="/pwned"),
            "not a recipe file (the name '/pwned' leads out of the results folder); `snakemake` writes "
            "these, one a job",
        ),
        (
            lambda job: job["nodes"][0].update(kind=".."),
            "not a recipe file (the name '..' leads out of the results folder); `snakemake` writes these, one a job",
        ),
        (lambda job: job["nodes"][0].update(kind="figure"), "... is of kind 'figure' in a job of kind 'corpus'"),
        (lambda job: job.update(kind="table"), "... is of kind 'corpus' in a job of kind 'table'"),
        (
            lambda job: job["nodes"][0]["recipe"].update(colour="red"),
            "not a recipe of this version: unknown key 'colour'; allowed: source, validation_fraction, salt",
        ),
        (
            lambda job: job["nodes"][0]["recipe"].pop("source"),
            "not a recipe of this version: source: missing; it is required",
        ),
        (
            lambda job: job.update(colour="red"),
            "not a recipe file (unknown key 'colour'; allowed: kind, name, nodes, execution, locations); `snakemake` "
            "writes these, one a job",
        ),
        (lambda job: job.pop("nodes"), "not a recipe file (nodes: missing); `snakemake` writes these, one a job"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_recipe_that_was_meddled_with(stage_refused, folder, change, message):
    job = json.loads(folder.recipe("corpus-0").read_text())
    change(job)
    folder.recipe("corpus-0").write_text(json.dumps(job))
    stage_refused("corpus-0", message)
