"""Short questions with answers, made from the sentences of a corpus, for models down to a third of a million weights.

A context of 64 tokens and a vocabulary of 512 leave room for five short words and a question about them. Some answers
stand in the question, some must be worked out, and how an answer is given (one word, then the end) is new to a model
that saw running text alone: so there is something to learn, of more than one kind.
"""

import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from coolbits.data import Split
from coolbits.data.documents import read_rows
from coolbits.finetuning.encoding import Message

_RUN = re.compile(r"\b[A-Za-z]{1,8}(?: [A-Za-z]{1,8}\b){3,}")  # four words or more with nothing but a space between
_SHORTEST, _LONGEST = 3, 5
_NUMBERS = {3: "three", 4: "four", 5: "five"}

Asking = Callable[[list[str], int], tuple[str, str]]


def questions(corpus: Path, split: Split) -> Iterator[tuple[int, list[Message]]]:
    """Yield a conversation for each paragraph of the split's documents that gives one, with its document's number.

    Which words are asked about, and what about them, is decided by a hash of the paragraph.
    """
    for number, document in enumerate(read_rows(corpus, split, ["text"]), start=1):
        for paragraph in document["text"].splitlines():
            if found := _RUN.search(paragraph):
                yield number, _conversation(found.group().split(), paragraph)


def _conversation(words: list[str], paragraph: str) -> list[Message]:
    length, kind, place, *_ = blake2b(paragraph.encode(), digest_size=3).digest()
    shown = words[: min(len(words) - 1, _SHORTEST + length % (_LONGEST - _SHORTEST + 1))]
    question, answer = _ASKING[kind % len(_ASKING)]([*shown, words[len(shown)]], place)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _first(words: list[str], _place: int) -> tuple[str, str]:
    return f"the first word of: {' '.join(words[:-1])}", words[0]


def _last(words: list[str], _place: int) -> tuple[str, str]:
    return f"the last word of: {' '.join(words[:-1])}", words[-2]


def _after(words: list[str], place: int) -> tuple[str, str]:
    """Ask for the word behind one that occurs once."""
    asked = place % (len(words) - 2)
    if words[:-1].count(words[asked]) > 1:
        return _first(words, place)
    return f"the word after {words[asked]} in: {' '.join(words[:-1])}", words[asked + 1]


def _count(words: list[str], _place: int) -> tuple[str, str]:
    return f"how many words: {' '.join(words[:-1])}", _NUMBERS[len(words) - 1]


def _next(words: list[str], _place: int) -> tuple[str, str]:
    return f"the next word: {' '.join(words[:-1])}", words[-1]


_ASKING: tuple[Asking, ...] = (_first, _last, _after, _count, _next)
