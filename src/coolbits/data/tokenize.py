"""Tokenizing: a corpus to token shards, in parallel, streaming, and in steps that a killed run need not repeat.

A shard ends with the first document that fills it, so no document spans two shards, and "documents in finished shards"
is all that has to be known to go on. The threads are the tokenizers library's own: nothing is sent between processes,
and a killed job leaves none behind.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from tokenizers import Tokenizer as Backend

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.artifacts.hashing import digest_of
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_sealed, sealed
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.data import Split
from coolbits.data.documents import count_documents, read_documents
from coolbits.data.shards import INDEX, read_header, verify_shard, write_shard
from coolbits.data.tokenizers import load_tokenizer, use_threads, vocabulary_size
from coolbits.loops.locks import alone_in
from coolbits.study.execution import Execution
from coolbits.study.recipes.data import Shards

_FINISHED, _PROGRESS = "finished", "progress.json"
_SPLITS: tuple[Split, ...] = get_args(Split)
_BATCH_CHARACTERS = 1 << 20

Entry = dict[str, Any]
Finished = dict[str, list[Entry]]


class Encoded(NamedTuple):
    """One document: its tokens, end of text included, and the bytes of its text in UTF-8."""

    tokens: np.ndarray
    size: int


def run(job: Job, store: Store) -> int:
    """Make the token shards of a job; return how many artifacts were not there yet.

    Raises:
        CoolbitsError: if another process makes one of them, or as `build_shards`.
    """
    workers = Execution.read(job.execution).tokenizer_workers

    def make(node: Node) -> Callable[[Path], dict[str, Any]]:
        recipe = Shards.read(node.recipe)
        corpus, tokenizer = (node.parent_directory(store.root, role) for role in ("corpus", "tokenizer"))
        parents = [store.manifest(node, role).digest for role in ("corpus", "tokenizer")]
        origin, work = (
            digest_of([node.fingerprint, store.code.digest, *parents]),
            store.work_directory(node) / _FINISHED,
        )
        return lambda out: build_shards(recipe, corpus, tokenizer, work, workers, out, origin)

    made = 0
    for node in job.nodes:
        with alone_in(store.work_directory(node)):
            made += store.ensure(node, make(node))
            shutil.rmtree(store.work_directory(node), ignore_errors=True)
    return made


def build_shards(
    recipe: Shards, corpus: Path, tokenizer: Path, work: Path, workers: int, out: Path, origin: str = ""
) -> dict[str, Any]:
    """Tokenize both splits of a corpus into shards in `out`, with `index.json`; return the summary.

    Documents keep the order of the corpus, each ends with the end-of-text token, and the text of a special token inside
    a document is read as plain text. Bytes per token counts the end-of-text tokens among the tokens: bits per byte is
    nats per token / ln 2 / bytes per token where those are scored too.

    Finished shards stay in `work` until the caller removes it. `origin` names what they were made from: shards of
    another origin are not used.

    Raises:
        CoolbitsError: if corpus or tokenizer cannot be read.
    """
    use_threads(workers)
    opened = load_tokenizer(tokenizer)
    end, vocabulary = opened.eos_token_id, vocabulary_size(opened)
    if end is None:
        raise CoolbitsError(f"{tokenizer}: the tokenizer names no end-of-text token (`eos_token`)")
    backend = _plain(opened.backend_tokenizer)
    finished = _resume(work, origin)
    done = sum(entry["documents"] for entries in finished.values() for entry in entries)
    with Progress("shards", count_documents(corpus), "documents", done) as progress:
        for split in _SPLITS:
            texts = islice(read_documents(corpus, split), _sum(finished[split], "documents"), None)
            for entry in _write_shards(
                _encode(texts, backend, end), split, len(finished[split]), recipe, vocabulary, work, progress
            ):
                finished[split].append(entry)
                write_json(work / _PROGRESS, sealed({"origin": origin, "finished": finished}))
    _publish(finished, work, out)
    index = _index(finished, end, vocabulary)
    write_json(out / INDEX, index)
    tokens = {split: _sum(entries, "tokens") for split, entries in finished.items()}
    return {
        "train_tokens": tokens["train"],
        "validation_tokens": tokens["validation"],
        "bytes_per_token": index["bytes_per_token"]["validation"],
        "vocabulary_size": vocabulary,
    }


def _plain(backend: Backend) -> Backend:
    """Return the tokenizer set to give each text's own tokens: whole, unpadded, special tokens not recognized."""
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def _encode(texts: Iterator[str], backend: Backend, end: int) -> Iterator[Encoded]:
    for batch in _batches(texts):
        for text, encoding in zip(batch, backend.encode_batch_fast(batch, add_special_tokens=False), strict=True):
            yield Encoded(np.array([*encoding.ids, end], np.int64), len(text.encode()))


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    filled = 0
    for text in texts:
        batch.append(text)
        filled += len(text)
        if filled >= _BATCH_CHARACTERS:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch


def _write_shards(
    documents: Iterator[Encoded],
    split: Split,
    first_number: int,
    recipe: Shards,
    vocabulary: int,
    work: Path,
    progress: Progress,
) -> Iterator[Entry]:
    """Write the documents as numbered shards; yield the index entry of each as soon as it is whole."""
    for number in count(first_number):
        first = next(documents, None)
        if first is None:
            return
        name = f"{split}-{number:05d}.bin"
        entry: Entry = {"file": name, "documents": 0, "bytes": 0}
        header = write_shard(
            work / name, _fill(chain([first], documents), entry, recipe.shard_tokens, progress), vocabulary
        )
        yield entry | {"tokens": header.tokens, "sha256": header.digest}


def _fill(documents: Iterator[Encoded], entry: Entry, shard_tokens: int, progress: Progress) -> Iterator[np.ndarray]:
    """Yield documents until they are enough for a shard, counting them in its index entry."""
    filled = 0
    for document in documents:
        yield document.tokens
        filled += document.tokens.size
        entry["documents"] += 1
        entry["bytes"] += document.size
        progress.advance()
        if filled >= shard_tokens:
            return


def _resume(work: Path, origin: str) -> Finished:
    """Return the finished shards of a killed run of the same origin, of each split up to the first that is damaged."""
    state = read_sealed(work / _PROGRESS) or {}
    if state.get("origin") == origin:
        return {split: list(takewhile(partial(_is_whole, work), state["finished"][split])) for split in _SPLITS}
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return {split: [] for split in _SPLITS}


def _is_whole(work: Path, entry: Entry) -> bool:
    path = work / entry["file"]
    try:
        verify_shard(path)
    except CoolbitsError:
        return False
    return read_header(path).digest == entry["sha256"]


def _publish(finished: Finished, work: Path, out: Path) -> None:
    for entry in chain.from_iterable(finished.values()):
        source, target = work / entry["file"], out / entry["file"]
        try:
            target.hardlink_to(source)
        # Not every file system has hard links; moving would lose the work of a run killed right after it.
        except OSError:
            shutil.copyfile(source, target)


def _index(finished: Finished, end: int, vocabulary: int) -> dict[str, Any]:
    totals = {key: {split: _sum(entries, key) for split, entries in finished.items()} for key in ("bytes", "documents")}
    per_token = {
        split: totals["bytes"][split] / tokens
        for split, entries in finished.items()
        if (tokens := _sum(entries, "tokens"))
    }
    return finished | {"end_of_text_id": end, "vocabulary_size": vocabulary, **totals, "bytes_per_token": per_token}


def _sum(entries: list[Entry], key: str) -> int:
    return sum(entry[key] for entry in entries)
