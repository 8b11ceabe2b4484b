"""Excerpts: windows of tokens out of documents that lie end to end, from a source that no study prepared."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.draws import first_filling
from coolbits.data.sources import open_documents
from coolbits.ptq.origins import Numbered, numbered, stream_pieces
from coolbits.ptq.tokens import Tokens
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.data import EmbeddedSource, FileSource, HubSource, Source

_SPREAD = 8  # times the tokens wanted are taken, so that what is drawn is not one document
_CHARACTERS = 8  # of a token, for a guess at the text that serves: more than tokenizers put in one on average


class Text(NamedTuple):
    """A source of text as the command line gives it, and how to open it."""

    given: str
    source: Source
    locations: list[Path]

    @property
    def sha256(self) -> str | None:
        """The digest of the file that is read; None for a dataset of the hub."""
        match self.source:
            case EmbeddedSource(sha256=digest) | FileSource(sha256=(digest,)):
                return digest
            case _:
                return None


class _Joined(NamedTuple):
    """The tokens of documents end to end, the documents, and where each ends among the tokens."""

    tokens: list[int]
    documents: list[Numbered]
    ends: list[int]


def draw_excerpts(
    text: Text, tokenizer: PreTrainedTokenizerFast, recipe: Windows
) -> tuple[Tokens, pa.Table, dict[str, str | None]]:
    """Draw windows, without repetition and by seed, from documents of a source, end to end; also say from which.

    Eight times the tokens wanted are taken, or all there are. Between two documents stands the tokenizer's end-of-text
    token, if it has one; the text of a special token inside a document is read as plain text.

    Raises:
        CoolbitsError: if there is no text, or there are fewer windows than wanted.
    """
    length, wanted = recipe.sequence_length, recipe.sequences
    stream, origin = _stream(text, tokenizer, recipe)
    if not stream.tokens:
        raise CoolbitsError(f"--calibration {text.given}: holds no text, or blank text alone")
    windows = len(stream.tokens) // length
    if windows < wanted:
        raise CoolbitsError(
            f"--calibration {text.given}: {wanted} sequences of {length} tokens are wanted, there are {windows}; give "
            f"more text, or fewer by --sequences or --sequence-length"
        )
    starts = [window * length for window in random.Random(recipe.seed).sample(range(windows), wanted)]
    drawn = Tokens.of_equal_length(torch.tensor([stream.tokens[start : start + length] for start in starts]))
    return drawn, stream_pieces(starts, length, stream.documents, stream.ends), origin


def _stream(text: Text, tokenizer: PreTrainedTokenizerFast, recipe: Windows) -> tuple[_Joined, dict[str, str | None]]:
    """Return the tokens of documents, chosen by seed out of all of a source that is here, in the order of the choice.

    Of a dataset of the hub, which comes as a stream that nobody wants to the end, they are the first documents.
    """
    wanted = recipe.sequences * recipe.sequence_length
    if isinstance(text.source, HubSource):
        found = open_documents(text.source, [])
        return _joined(numbered(found.items), tokenizer, _SPREAD * wanted), found.origin
    characters = _CHARACTERS * _SPREAD * wanted
    while True:
        documents = open_documents(text.source, text.locations).items
        chosen = _choose(numbered(documents), characters, recipe.seed)
        stream = _joined(chosen, tokenizer, _SPREAD * wanted)
        if len(stream.tokens) >= wanted or sum(len(each.text) for each in chosen) < characters:
            return stream, {}
        characters *= 10  # the guess was wrong: tokens are longer here


def _choose(found: Iterable[Numbered], characters: int, seed: int) -> list[Numbered]:
    """Return documents that come first in an order by seed and hold so many characters, or all, in that order.

    More characters only add to the end.
    """
    # Not the seed itself: the windows are drawn with it, and would lie where the same numbers put the documents.
    generator = random.Random(f"documents {seed}")
    drawn = first_filling(((generator.random(), len(each.text), each) for each in found), characters)
    return [each for _, each in drawn]


def _joined(found: Iterable[Numbered], tokenizer: PreTrainedTokenizerFast, enough: int) -> _Joined:
    """Return the tokens of documents, an end-of-text token after each, up to the document that makes them enough."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    joined = _Joined([], [], [])
    for each in found:
        if ids := backend.encode(each.text, add_special_tokens=False).ids:
            joined.tokens.extend(ids + end)
            joined.documents.append(each)
            joined.ends.append(len(joined.tokens))
        if len(joined.tokens) >= enough:
            break
    return joined
