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
from coolbits.data.shards import TokenStream, open_stream
from coolbits.data.sources import open_documents
from coolbits.data.tokenizers import load_tokenizer
from coolbits.ptq.documents import draw_tokens, first_documents
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

    `parents` has `shards` for windows of training tokens, `tokenizer` for the others; `files` are those that documents
    are read from, in the order of the source's names.

    Raises:
        CoolbitsError: if there are too few tokens or documents, or a file is not the one that the recipe names.
    """
    origin: dict[str, str | None] = {}
    match recipe.calibration:
        case Windows() as windows:
            calibration = draw_windows(open_stream(parents["shards"], "train"), windows)
        case Documents() as documents:
            found = open_documents(documents.source, list(files))
            origin = found.origin
            calibration = first_documents(load_tokenizer(parents["tokenizer"]), documents, found.items)
        case RandomTokens() as drawn:
            calibration = draw_tokens(load_tokenizer(parents["tokenizer"]), drawn)
    write_tokens(calibration, out)
    return {"sequences": len(calibration.tokens), "tokens": calibration.count} | origin


def draw_windows(stream: TokenStream, recipe: Windows) -> Tokens:
    """Draw sequences from the training tokens, without repetition, by seed.

    Raises:
        CoolbitsError: if the stream has too few.
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
    starts = (window * length for window in random.Random(recipe.seed).sample(range(windows), wanted))
    drawn = np.stack([stream.read(start, start + length) for start in starts]).astype(np.int64)
    return Tokens.of_equal_length(torch.from_numpy(drawn))
