"""Questions made from held-out text: the last word of a passage, and which of four continuations is the true one."""

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from coolbits.data.documents import read_rows

CHOICES = 4
CONTEXT_WORDS = 32
CONTINUATION_WORDS = 16

_WORD = re.compile(r"\S+")
_TARGET = re.compile(r"([A-Za-z]{4,})[.,;:!?]*")

Row = dict[str, Any]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph (a line) of a held-out document, and the corpus's name for where the document comes from."""

    source: str
    text: str

    def order(self, seed: int) -> bytes:
        """Return the key that shuffles paragraphs: a hash of seed and text, whatever their place in the corpus."""
        return blake2b(f"{seed}\n{self.text}".encode(), digest_size=16).digest()


def held_out_paragraphs(corpus: Path) -> Iterator[Paragraph]:
    """Yield the paragraphs of the corpus's validation documents, in their order, each text once."""
    seen = set()
    for document in read_rows(corpus, "validation", ["source", "text"]):
        for line in document["text"].splitlines():
            paragraph = Paragraph(document["source"], line)
            if (key := paragraph.order(0)) not in seen:
                seen.add(key)
                yield paragraph


def cloze_rows(paragraphs: Iterable[Paragraph], limit: int | None, seed: int) -> list[Row]:
    """Return rows {context, target}: 32 words of a paragraph, and the word that follows, as in LAMBADA.

    The word has four letters or more, so that it is seldom one that any context would allow. At most one row a
    paragraph; `limit` keeps a random share of them, decided by `seed`.
    """
    candidates = (paragraph for paragraph in paragraphs if _cloze_row(paragraph.text))
    rows = (_cloze_row(paragraph.text) for paragraph in _shuffled(candidates, limit, seed))
    return [row for row in rows if row]


def choice_rows(paragraphs: Iterable[Paragraph], limit: int | None, seed: int) -> list[Row]:
    """Return rows {context, choices, answer}: 32 words, and four continuations of 16 words, one of them true.

    The wrong ones are the continuations of other paragraphs from the same source, so that style does not give them
    away; sources with fewer than four paragraphs are taken together. Where the true one stands is random.
    """
    by_source = defaultdict(list)
    long_enough = (each for each in paragraphs if len(each.text.split()) >= CONTEXT_WORDS + CONTINUATION_WORDS)
    for paragraph in _shuffled(long_enough, limit, seed):
        by_source[paragraph.source].append(paragraph)
    groups = [group for group in by_source.values() if len(group) >= CHOICES]
    groups.append([paragraph for group in by_source.values() if len(group) < CHOICES for paragraph in group])
    keyed = [
        (paragraph.order(seed), _choice_row(group, place, seed))
        for group in groups
        if len(group) >= CHOICES
        for place, paragraph in enumerate(group)
    ]
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def _cloze_row(text: str) -> Row | None:
    words = list(_WORD.finditer(text))
    for first, word in enumerate(words[CONTEXT_WORDS:]):
        if target := _TARGET.fullmatch(word.group()):
            context = text[words[first].start() : words[first + CONTEXT_WORDS - 1].end()]
            return {"context": context, "target": f" {target.group(1)}"}
    return None


def _choice_row(group: list[Paragraph], place: int, seed: int) -> Row:
    """Ask for the continuation of `group[place]`, against those of the three that follow it, cyclically."""
    context, truth = _split(group[place].text)
    wrong = [_split(group[(place + step) % len(group)].text)[1] for step in range(1, CHOICES)]
    answer = group[place].order(seed)[-1] % CHOICES
    return {"context": context, "choices": [*wrong[:answer], truth, *wrong[answer:]], "answer": answer}


def _split(text: str) -> tuple[str, str]:
    words = list(_WORD.finditer(text))
    context = text[words[0].start() : words[CONTEXT_WORDS - 1].end()]
    return context, text[words[CONTEXT_WORDS].start() : words[CONTEXT_WORDS + CONTINUATION_WORDS - 1].end()]


def _shuffled(paragraphs: Iterable[Paragraph], limit: int | None, seed: int) -> list[Paragraph]:
    """Return the paragraphs in random order, the first `limit` of them; no more than those are ever held."""
    if limit is None:
        return sorted(paragraphs, key=lambda paragraph: paragraph.order(seed))
    return heapq.nsmallest(limit, paragraphs, key=lambda paragraph: paragraph.order(seed))
