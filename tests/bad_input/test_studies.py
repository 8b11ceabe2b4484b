"""Studies that are refused, before any job, in words that their writer can act on."""

import os
from pathlib import Path

import pytest
import yaml

from coolbits.study.grid import MOST

TABLE = yaml.safe_load(Path(__file__).with_name("studies.yaml").read_text())


def changed(row):
    """Return the key that a row changes, the value it gives it, and the message."""
    ((key, value), (_, message)) = row.items()
    return key, value, message


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "{}={!s:.30}".format(*changed(row)))
def test_a_study_with_one_mistake(refused, write_study, row):
    key, value, message = changed(row)
    write_study(key, value)
    refused("plan", "study.yaml", expected=f"study.yaml: {message}")


def test_a_grid_too_large_to_be_meant(refused, write_study):
    write_study("runs.wsd.peak_lr", [rate / 1e6 for rate in range(1, MOST + 2)])
    refused("plan", "study.yaml", expected="study.yaml: runs.wsd: a grid of 10,001 points; at most 10,000 are allowed")


def test_a_path_too_long_to_be_one(refused, write_study):
    write_study("data.corpus.paths", [f"{'x' * 300}.txt"])
    refused("plan", "study.yaml", expected="study.yaml: data.corpus.paths: 'xxx...' is no path (File name too long)")


NOT_YAML = "study.yaml: not readable as YAML: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.yaml: should be keys and values; found nothing"),
        ("# only a comment\n", "study.yaml: should be keys and values; found nothing"),
        ("- study\n", "study.yaml: should be keys and values; found ['study']"),
        ("study", "study.yaml: should be keys and values; found 'study'"),
        (
            "study: [",
            f"{NOT_YAML}line 1: while parsing a flow node, expected the node content, but found '<stream end>'",
        ),
        (
            "study:\n\tname: a\n",
            f"{NOT_YAML}line 2: while scanning for the next token, found character '\\t' that cannot start any token",
        ),
        (
            "study: a\n---\nstudy: b\n",
            f"{NOT_YAML}line 2: expected a single document in the stream, but found another document",
        ),
        ("study: a\nstudy: b\n", f"{NOT_YAML}line 2: the key 'study' is given twice"),
        ("runs:\n  a: {}\n  a: {}\n", f"{NOT_YAML}line 3: the key 'a' is given twice"),
        ("a: &a [b, b]\nc: *a\n", f"{NOT_YAML}line 2: aliases (*name) are not allowed"),
        ("a: &a [*a, *a]\n", f"{NOT_YAML}line 1: aliases (*name) are not allowed"),
        ("runs: {<<: {a: 1}}\n", f"{NOT_YAML}line 1: a merge (<<) is not allowed; text goes in quotes"),
        ("study: 2026-01-01\n", f"{NOT_YAML}line 1: a date is not allowed; text goes in quotes"),
        ("study: !!binary aGk=\n", f"{NOT_YAML}line 1: the tag !!binary is not allowed; text goes in quotes"),
        ("study: !secret a\n", f"{NOT_YAML}line 1: the tag !secret is not allowed; text goes in quotes"),
        (
            "study: !!python/object/apply:os.system ['touch pwned']\n",
            f"{NOT_YAML}line 1: the tag !!python/object/apply:os.system is not allowed; text goes in quotes",
        ),
        ("a: b\nc: !!bool maybe\n", f"{NOT_YAML}line 2: the tag !!bool is not allowed; text goes in quotes"),
        ("seed: [7, 010]\n", f"{NOT_YAML}line 1: 010: YAML reads a number that begins with 0 as octal..."),
        ("tokens: 1:30:00\n", f"{NOT_YAML}line 1: 1:30:00: YAML reads..., and one with ':' in base 60..."),
        ("rate: 1:30.5\n", f"{NOT_YAML}line 1: 1:30.5: YAML reads a number..."),
        ("runs: {1: {}}\n", f"{NOT_YAML}line 1: a key that is not text, '1'; put it in quotes"),
        ("no: 1\n", f"{NOT_YAML}line 1: a key that is not text, 'no'; put it in quotes"),
        ("? [a]\n: 1\n", f"{NOT_YAML}line 1: a key that is not text, a sequence; put it in quotes"),
        ("study: a\0b\n", f"{NOT_YAML}unacceptable character #x0000: special characters are not allowed..."),
        (f"study: {'9' * 10_000}\n", f"{NOT_YAML}line 1: a number of 10,000 digits; at most 100 are allowed"),
        ("[" * 100_000, f"{NOT_YAML}line 1: more than 50 levels of keys or lists"),
        (" " * (1 << 20) + "a: 1", "study.yaml: larger than 1 MiB; a study file is a few hundred lines of YAML"),
        ('"\\e[31m\\n": 1\n', "study.yaml: unknown key '\\x1b[31m\\n'; allowed: study, data..."),
        (b"study: caf\xe9", "study.yaml: not UTF-8 text (byte 10)"),
        ("study: a".encode("utf-16"), "study.yaml: not UTF-8 text (byte 0)"),
    ],
    ids=lambda value: f"{value!s:.30}",
)
def test_a_file_that_is_no_study(refused, here, text, message):
    (here / "study.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused("plan", "study.yaml", expected=message)


def test_what_runs_code_in_other_readers_is_text_here(refused, here):
    (here / "study.yaml").write_text("__use_yte__: true\nstudy: ?open('pwned', 'w')\n")
    refused("plan", "study.yaml", expected="study.yaml: unknown key '__use_yte__'; allowed: study...")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.yaml", "gone.yaml: no such study file"),
        (".", ".: a folder, not a study file"),
        ("corpus.jsonl/study.yaml", "corpus.jsonl/study.yaml: cannot be read (Not a directory)"),
        (f"{'x' * 300}.yaml", "xxx....yaml: cannot be read (File name too long)"),
        ("a\nb.yaml", "a\\nb.yaml: no such study file"),
        ("\x1b[31m.yaml", "\\x1b[31m.yaml: no such study file"),
    ],
)
def test_a_path_at_which_there_is_no_study(refused, here, path, message):
    (here / "corpus.jsonl").write_text("{}")
    refused("plan", path, expected=message)


def test_documents_in_a_folder_whose_name_is_not_utf_8(refused, write_study, here, monkeypatch):
    folder = here / os.fsdecode(b"m\xe9moire")
    folder.mkdir()
    write_study("study", "tiny")
    for name in ("study.yaml", "corpus.jsonl"):
        (here / name).rename(folder / name)
    monkeypatch.chdir(folder)
    refused("plan", "study.yaml", expected="study.yaml: .../m\\udce9moire/corpus.jsonl: not valid UTF-8, which...")
