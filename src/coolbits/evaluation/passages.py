"""Questions made from held-out text: the next word of a passage, and which of four passages a text continues.

Both are made for models of any size down to a third of a million parameters and a context of 64 tokens. A cloze fits it
with any tokenizer, and so does the continuation of a choice. An opening before that may be longer, then its beginning
is lost, and it is counted as cut.
"""

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from coolbits.data.documents import read_rows

# No tokenizer makes more tokens than bytes: texts of so many bytes fit into a context of 64 whatever it is.
CLOZE_WORDS = 8
CLOZE_BYTES = 64
CHOICES = 4
CHOICE_WORDS = 8
CHOICE_BYTES = 60

_WORD = re.compile(r"\S+")
_TARGET = re.compile(r"([A-Za-z]+)[.,;:!?]*")

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
    """Return rows {context, target}: 8 words of a paragraph, and the word that follows, in 64 bytes at most.

    At most one row a paragraph; `limit` keeps a random share of them, decided by `seed`. Unlike LAMBADA's, the word
    may be any: of words of four letters or more, a micro model guesses one in sixty.
    """
    candidates = (paragraph for paragraph in paragraphs if _cloze_row(paragraph.text))
    rows = (_cloze_row(paragraph.text) for paragraph in _shuffled(candidates, limit, seed))
    return [row for row in rows if row]


def choice_rows(paragraphs: Iterable[Paragraph], limit: int | None, seed: int) -> list[Row]:
    """Return rows {contexts, continuation, answer}: four openings of 8 words, and the 8 words that follow one.

    Scored as WinoGrande is: the likelihood of the same text after each opening. That the text is the same takes out
    how likely it is by itself, which otherwise drowns what a small model knows of the context. The wrong openings are
    those of other paragraphs from the same source, so that style does not give them away; sources with fewer than four
    paragraphs are taken together. Where the true one stands is random.
    """
    by_source = defaultdict(list)
    fitting = (paragraph for paragraph in paragraphs if _fits(paragraph.text))
    for paragraph in _shuffled(fitting, limit, seed):
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
    for last, word in enumerate(words[CLOZE_WORDS:], start=CLOZE_WORDS - 1):
        if target := _TARGET.fullmatch(word.group()):
            row = {
                "context": text[words[last - CLOZE_WORDS + 1].start() : words[last].end()],
                "target": f" {target.group(1)}",
            }
            if len("".join(row.values()).encode()) <= CLOZE_BYTES:
                return row
    return None


def _choice_row(group: list[Paragraph], place: int, seed: int) -> Row:
    """Ask what `group[place]` opens with, against the openings of the three that follow it, cyclically."""
    truth, continuation = _halves(group[place].text)
    wrong = [_halves(group[(place + step) % len(group)].text)[0] for step in range(1, CHOICES)]
    answer = group[place].order(seed)[-1] % CHOICES
    return {"contexts": [*wrong[:answer], truth, *wrong[answer:]], "continuation": continuation, "answer": answer}


def _fits(text: str) -> bool:
    return len(text.split()) >= 2 * CHOICE_WORDS and len(_halves(text)[1].encode()) <= CHOICE_BYTES


def _halves(text: str) -> tuple[str, str]:
    words = list(_WORD.finditer(text))
    opening = text[words[0].start() : words[CHOICE_WORDS - 1].end()]
    return opening, text[words[CHOICE_WORDS].start() : words[2 * CHOICE_WORDS - 1].end()]


def _shuffled(paragraphs: Iterable[Paragraph], limit: int | None, seed: int) -> list[Paragraph]:
    """Return the paragraphs in random order, the first `limit` of them; no more than those are ever held."""
    if limit is None:
        return sorted(paragraphs, key=lambda paragraph: paragraph.order(seed))
    return heapq.nsmallest(limit, paragraphs, key=lambda paragraph: paragraph.order(seed))
