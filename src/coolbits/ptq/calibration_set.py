"""The stage of calibrations: the tokens that calibrated methods show to a model."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.data.shards import TokenStream, open_stream, read_index
from coolbits.data.sources import open_documents
from coolbits.data.tokenizers import load_tokenizer
from coolbits.ptq.documents import draw_tokens
from coolbits.ptq.origins import shard_pieces, take_documents, write_documents
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.calibration import CalibrationSet, Documents, RandomTokens, Windows
from coolbits.study.recipes.data import FileSource


def run(job: Job, store: Store) -> int:
    """Make the calibrations of a job; return how many were made."""
    return sum(_make(node, store, job.locations) for node in job.nodes)


def _make(node: Node, store: Store, locations: Mapping[str, list[str]]) -> bool:
    recipe = CalibrationSet.read(node.recipe)
    parents = {role: ref.directory(store.root) for role, ref in node.parents.items()}
    return store.ensure(node, lambda out: build_calibration(recipe, parents, out, _files(recipe, locations)))


def _files(recipe: CalibrationSet, locations: Mapping[str, list[str]]) -> list[Path]:
    """Return where the files of the documents lie, by their digests."""
    source = getattr(recipe.calibration, "source", None)
    digests = source.sha256 if isinstance(source, FileSource) else ()
    return [Path(path) for digest in digests for path in locations.get(digest, [])]


def build_calibration(
    recipe: CalibrationSet, parents: Mapping[str, Path], out: Path, files: Sequence[Path] = ()
) -> dict[str, Any]:
    """Write the tokens of a calibration to `out`; return the summary: sequences, tokens, and a hub's commit.

    Beside tokens that someone wrote stands the table of the documents that they come from.

    `parents` has `shards` for windows of training tokens, `tokenizer` for the others; `files` are those that documents
    are read from, in the order of the source's names.

    Raises:
        CoolbitsError: if there are too few tokens or documents, or a file is not the one that the recipe names.
    """
    origin: dict[str, str | None] = {}
    match recipe.calibration:
        case Windows() as windows:
            stream = open_stream(parents["shards"], "train")
            starts = window_starts(stream, windows)
            calibration = read_windows(stream, starts, windows.sequence_length)
            names = [entry["file"] for entry in read_index(parents["shards"])["train"]]
            write_documents(shard_pieces(stream, names, starts, windows.sequence_length), out)
        case Documents() as documents:
            found = open_documents(documents.source, list(files))
            origin = found.origin
            calibration, taken = take_documents(load_tokenizer(parents["tokenizer"]), documents, found.items)
            write_documents(taken, out)
        case RandomTokens() as drawn:
            calibration = draw_tokens(load_tokenizer(parents["tokenizer"]), drawn)
    write_tokens(calibration, out)
    return {"sequences": len(calibration.tokens), "tokens": calibration.count} | origin


def draw_windows(stream: TokenStream, recipe: Windows) -> Tokens:
    """Draw sequences from the training tokens, without repetition, by seed.

    Raises:
        CoolbitsError: if the stream has too few.
    """
    return read_windows(stream, window_starts(stream, recipe), recipe.sequence_length)


def window_starts(stream: TokenStream, recipe: Windows) -> list[int]:
    """Return where the sequences begin that `draw_windows` draws, in their order.

    Raises:
        CoolbitsError: if the stream has too few tokens.
    """
    length, wanted = recipe.sequence_length, recipe.sequences
    windows = stream.tokens // length
    if stream.tokens < length:
        raise CoolbitsError(
            f"calibration.sequence_length: {length} tokens, but the training split has {stream.tokens}; at most "
            f"{stream.tokens // wanted} are possible in each of {wanted} sequences"
        )
    if windows < wanted:
        raise CoolbitsError(
            f"calibration.sequences: {wanted} sequences of {length} tokens are wanted, the training split has {windows}"
        )
    return [window * length for window in random.Random(recipe.seed).sample(range(windows), wanted)]


def read_windows(stream: TokenStream, starts: Sequence[int], length: int) -> Tokens:
    """Return the sequences of `length` tokens that begin at `starts`."""
    drawn = np.stack([stream.read(start, start + length) for start in starts]).astype(np.int64)
    return Tokens.of_equal_length(torch.from_numpy(drawn))
