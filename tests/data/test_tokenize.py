"""Shards hold every document once, in order, ended; a killed run goes on and gives the same bytes."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors

import coolbits.data.tokenize as stage
from coolbits.artifacts.code import code_slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import describe_files, read_manifest
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.data import corpus as corpus_stage
from coolbits.data import tokenizers as tokenizer_stage
from coolbits.data.corpus import build_corpus
from coolbits.data.documents import read_documents
from coolbits.data.shards import open_stream, read_index
from coolbits.data.tokenize import build_shards
from coolbits.data.tokenizers import END_OF_TEXT, load_tokenizer
from coolbits.study.recipes.data import Corpus, Shards, TokenizerRecipe, TrainedTokenizer

RECIPE = Shards(shard_tokens=500)


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def finished(corpus, tokenizer, tmp_path, out) -> Path:
    """The shards of the made corpus, from an undisturbed run."""
    build_shards(RECIPE, corpus, tokenizer, tmp_path / "work", 1, out)
    return out


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_tokens_are_those_of_the_documents_in_order_each_ended(corpus, tokenizer, finished, split):
    opened = load_tokenizer(tokenizer)
    expected = [
        token
        for text in read_documents(corpus, split)
        for token in [*opened.encode(text, add_special_tokens=False), opened.eos_token_id]
    ]
    stream = open_stream(finished, split)
    assert stream.read(0, stream.tokens).tolist() == expected


def test_every_shard_ends_with_the_document_that_fills_it(finished):
    index = read_index(finished)
    assert len(index["train"]) > 3
    for entry in index["train"][:-1]:
        assert RECIPE.shard_tokens <= entry["tokens"] < RECIPE.shard_tokens + 200
    stream = open_stream(finished, "train")
    assert all(stream.read(end - 1, end) == 0 for end in stream.starts[1:])


def test_the_index_counts_what_is_there(corpus, finished, tmp_path, tokenizer):
    index = read_index(finished)
    for split in ("train", "validation"):
        texts = list(read_documents(corpus, split))
        tokens = open_stream(finished, split).tokens
        assert index["documents"][split] == len(texts)
        assert index["bytes"][split] == sum(len(text.encode()) for text in texts)
        assert index["bytes_per_token"][split] == index["bytes"][split] / tokens
    (tmp_path / "again").mkdir()
    summary = build_shards(RECIPE, corpus, tokenizer, tmp_path / "work", 1, tmp_path / "again")
    assert summary == {
        "train_tokens": open_stream(finished, "train").tokens,
        "validation_tokens": open_stream(finished, "validation").tokens,
        "bytes_per_token": index["bytes_per_token"]["validation"],
        "vocabulary_size": 300,
    }


def test_a_special_token_inside_a_document_is_plain_text(source_of, tokenizer, tmp_path, out):
    source, locations = source_of("made.jsonl", [f"{END_OF_TEXT} in the middle {END_OF_TEXT} {n}" for n in range(20)])
    (tmp_path / "corpus").mkdir()
    build_corpus(Corpus(source=source, validation_fraction=0.5), locations, tmp_path / "corpus")
    build_shards(RECIPE, tmp_path / "corpus", tokenizer, tmp_path / "work", 1, out)
    stream = open_stream(out, "train")
    ends = np.count_nonzero(stream.read(0, stream.tokens) == stream.end_of_text_id)
    assert ends == read_index(out)["documents"]["train"]


def test_a_tokenizer_that_frames_cuts_and_pads_texts_does_so_with_no_document(corpus, tokenizer, finished, tmp_path):
    """Llama's puts a token before every text; some were saved as they cut and padded the texts of their training."""
    framing, framed = load_tokenizer(tokenizer), tmp_path / "framed"
    backend = framing.backend_tokenizer
    frame = [(END_OF_TEXT, framing.eos_token_id)]
    backend.post_processor = processors.TemplateProcessing(single=f"{END_OF_TEXT} $A", special_tokens=frame)
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    framing.save_pretrained(framed)
    (tmp_path / "whole").mkdir()
    build_shards(RECIPE, corpus, framed, tmp_path / "own work", 1, tmp_path / "whole")
    assert describe_files(tmp_path / "whole") == describe_files(finished)


@pytest.mark.parametrize("after", [0, 20, 90, 199, 250])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(corpus, tokenizer, finished, tmp_path, monkeypatch, after):
    work, resumed = tmp_path / "killed", tmp_path / "resumed"
    resumed.mkdir()
    read = 0

    def killed_midway(directory, split):
        nonlocal read
        for text in read_documents(directory, split):
            if read == after:
                raise KilledError
            read += 1
            yield text

    monkeypatch.setattr(stage, "_BATCH_CHARACTERS", 200)
    monkeypatch.setattr(stage, "read_documents", killed_midway)
    with pytest.raises(KilledError):
        build_shards(RECIPE, corpus, tokenizer, work, 1, resumed, "same")
    kept = {path.name: path.stat().st_mtime_ns for path in work.glob("*.bin")}
    entries = [entry["file"] for part in _progress(work).values() for entry in part]
    assert len(entries) >= after // 40

    monkeypatch.setattr(stage, "read_documents", read_documents)
    build_shards(RECIPE, corpus, tokenizer, work, 1, resumed, "same")
    assert describe_files(resumed) == describe_files(finished)
    assert all((work / name).stat().st_mtime_ns == kept[name] for name in entries), "finished shards are not redone"


def _progress(work: Path) -> dict:
    path = work / "progress.json"
    return json.loads(path.read_text())["finished"] if path.exists() else {}


@pytest.mark.parametrize("damage", ["flip", "remove", "swap"])
def test_a_damaged_kept_shard_is_made_again(corpus, tokenizer, finished, tmp_path, damage):
    work, resumed = tmp_path / "work", tmp_path / "resumed"
    resumed.mkdir()
    path = work / "train-00001.bin"
    content = path.read_bytes()
    # The finished artifact shares the file by hard link; a new one takes its place here.
    path.unlink()
    if damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    elif damage == "swap":
        path.write_bytes((work / "train-00000.bin").read_bytes())
    build_shards(RECIPE, corpus, tokenizer, work, 1, resumed)
    assert describe_files(resumed) == describe_files(finished)


def test_work_of_another_origin_is_not_used(corpus, tokenizer, tmp_path, out):
    work = tmp_path / "work"
    build_shards(Shards(shard_tokens=100), corpus, tokenizer, work, 1, out, "one")
    (tmp_path / "other").mkdir()
    build_shards(RECIPE, corpus, tokenizer, work, 1, tmp_path / "other", "two")
    (tmp_path / "fresh").mkdir()
    build_shards(RECIPE, corpus, tokenizer, tmp_path / "work of its own", 1, tmp_path / "fresh", "two")
    assert describe_files(tmp_path / "other") == describe_files(tmp_path / "fresh")
    assert len(list(work.glob("train-*.bin"))) == len(read_index(tmp_path / "other")["train"])


def test_batching_changes_no_byte(corpus, tokenizer, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH_CHARACTERS", 1)
    (tmp_path / "one by one").mkdir()
    build_shards(RECIPE, corpus, tokenizer, tmp_path / "other work", 2, tmp_path / "one by one")
    assert describe_files(tmp_path / "one by one") == describe_files(finished)


def test_memory_does_not_grow_with_the_corpus(source_of, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_BATCH_CHARACTERS", 5000)
    monkeypatch.setattr(corpus_stage, "_GROUP_CHARACTERS", 20_000)

    def peak(count: int) -> int:
        source, locations = source_of("made.jsonl", [f"{number} " + "cool bits " * 50 for number in range(count)])
        corpus, out = tmp_path / f"corpus-{count}", tmp_path / f"out-{count}"
        corpus.mkdir(), out.mkdir()
        build_corpus(Corpus(source=source, validation_fraction=0.1), locations, corpus)
        tracemalloc.start()
        build_shards(Shards(shard_tokens=20_000), corpus, tokenizer, tmp_path / f"work-{count}", 1, out)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    # Five times the text: 0.8 MB more, against 0.2 MB in use. What does grow is the index, by an entry a shard.
    assert peak(2000) < 2 * peak(400)


def test_the_three_stages_run_as_jobs_and_leave_no_work_behind(source_of, tmp_path):
    source, locations = source_of("made.jsonl", [f"document {number} of the cool bits" for number in range(50)])
    root = tmp_path / "results"
    corpus = make_node("corpus", "c", Corpus(source=source, validation_fraction=0.3).identity(), {})
    tokenizer = make_node(
        "tokenizer",
        "t",
        TokenizerRecipe(tokenizer=TrainedTokenizer(vocabulary_size=270)).identity(),
        {"corpus": corpus.ref},
    )
    parents = {"corpus": corpus.ref, "tokenizer": tokenizer.ref}
    shards = make_node("shards", "s", Shards(shard_tokens=100).identity(), parents)
    for node, module in ((corpus, corpus_stage), (tokenizer, tokenizer_stage), (shards, stage)):
        job = Job(node.kind, node.name, (node,), {"tokenizer_workers": 1}, {"files": locations})
        store = Store(root, code_slice(module.__name__))
        assert [module.run(job, store), module.run(job, store)] == [1, 0]
    summary = read_manifest(shards.directory(root)).summary
    assert summary["train_tokens"] == open_stream(shards.directory(root), "train", verify=True).tokens
    assert not (root / "work" / "shards" / shards.name).exists()
