"""A conversation as tokens, and which of them the model is to learn.

The text is rendered turn by turn: what a turn adds to the rendering of all turns before it is tokenized on its own. So
the prompt has the tokens that it has when a model is asked, and the mask begins and ends at whole tokens. A tokenizer
that puts a space before a text, as those of SentencePiece do, puts none before a piece where it would not within the
whole text.

A special token written out in a message is plain text, as in a document: only the template's own are control tokens.
So those of messages are broken by marks before the template is rendered, and the tokenizer, after it has looked for
special tokens, drops the marks. A special token of one character cannot be broken, and stays one.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from jinja2 import TemplateError
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.finetuning import LossOn

ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"
UNANSWERED = "no turn of the assistant answers another, so there is nothing to learn"
# Unicode keeps these for a program's own use: no text that is passed on has them.
_MARK = "\ufdd0\ufdd1"
# Of the parts of a tokenizer that put a space before a text: what keeps them from it.
_NO_PREFIX: dict[str, dict[str, Any]] = {
    "Metaspace": {"prepend_scheme": "never"},
    "Prepend": {"prepend": ""},
    "ByteLevel": {"add_prefix_space": False},
}

Message = dict[str, str]


@dataclass(frozen=True)
class Example:
    """One conversation: its tokens [length], int32, and whether each is learned [length], bool."""

    tokens: np.ndarray
    learned: np.ndarray


@dataclass(frozen=True)
class Encoder:
    """Encodes conversations with one tokenizer and chat template."""

    tokenizer: PreTrainedTokenizerFast
    template: str
    loss_on: LossOn
    sequence_length: int

    def encode(self, messages: Sequence[Message], where: str = "messages") -> Example | None:
        """Return the example of a conversation, or None if no answer lies within the first `sequence_length` tokens.

        What follows the last learned token is left out: nothing is learned from it.

        Raises:
            CoolbitsError: if the conversation has no assistant's turn, the template refuses it, does not render turn by
                turn or does not say where a turn ends.
        """
        pieces = self.pieces([message | {"content": self._marked(message["content"])} for message in messages], where)
        before = accumulate((text for text, _ in pieces), initial="")
        parts = [self._tokens(text, behind) for (text, _), behind in zip(pieces, before, strict=False)]
        tokens = np.concatenate([np.array(part, np.int32) for part in parts])[: self.sequence_length]
        marks = [np.full(len(part), learned) for part, (_, learned) in zip(parts, pieces, strict=True)]
        learned = np.concatenate(marks)[: self.sequence_length]
        learned[0] = False  # nothing precedes it from which it could be predicted
        end = int(learned.nonzero()[0].max(initial=-1)) + 1
        return Example(tokens[:end], learned[:end]) if end else None

    def pieces(self, messages: Sequence[Message], where: str = "messages") -> list[tuple[str, bool]]:
        """Return the rendered text in pieces, up to the end of the last answer, each with whether it is learned.

        A learned piece is an answer and the token that ends it: what the template puts behind the words that ask for
        the answer, up to the last character that is no white space. What the assistant says first answers nothing, and
        is not learned.
        """
        answers = [place for place in range(1, len(messages)) if messages[place]["role"] == ASSISTANT]
        if not answers:
            raise CoolbitsError(f"{where}: {UNANSWERED}")
        pieces: list[tuple[str, bool]] = []
        done = ""
        for place in answers if self.loss_on == "all" else answers[-1:]:
            prompt = self._render(messages[:place], where, asking=True)
            whole = self._render(messages[: place + 1], where, asking=False)
            if not (prompt.startswith(done) and whole.startswith(prompt)):
                raise CoolbitsError(
                    f"{where}: the chat template renders turns before the answer to message {place} otherwise once the "
                    "answer is there; a loss on it alone needs one that does not"
                )
            answer = whole[len(prompt) :].rstrip()
            if answer.strip() == messages[place]["content"].strip():
                raise CoolbitsError(f"{where}: the chat template puts no end of turn behind the assistant's words")
            pieces += [(prompt[len(done) :], False), (answer, True)]
            done = prompt + answer
        return pieces

    def _tokens(self, text: str, behind: str) -> list[int]:
        """Return the tokens of a piece as they are behind the text `behind`, with which none of them is merged."""
        if not behind or self._unspaced is None:
            return self._encode(text)
        if last := re.search(rf"(?:{self._control.pattern})\Z", behind):
            return self._encode(last.group() + text)[1:]
        plain = self._control.split(text, maxsplit=1)[0]
        return [*self._unspaced.encode(plain, add_special_tokens=False).ids, *self._encode(text[len(plain) :])]

    def _encode(self, text: str) -> list[int]:
        if _MARK in text:
            return self._unmarking.encode(text, add_special_tokens=False).ids
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _marked(self, content: str) -> str:
        """Return the words of a message with a mark behind each letter of the special tokens, so that none is whole."""
        return self._special.sub(lambda found: "".join(letter + _MARK for letter in found.group()), content)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Finds the special tokens that have several characters."""
        tokens = self.tokenizer.added_tokens_decoder.values()
        return _any_of(token.content for token in tokens if token.special and len(token.content) > 1)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """Finds the tokens that are looked for before all else, and at which a text falls into parts."""
        return _any_of(token.content for token in self.tokenizer.added_tokens_decoder.values())

    @cached_property
    def _unmarking(self) -> Backend:
        """The tokenizer, which drops marks once it has found special tokens.

        It looks for all of them before it normalizes text: some tokenizers look for some of them afterwards.
        """
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        unmark = {"type": "Replace", "pattern": {"String": _MARK}, "content": ""}
        own = [state["normalizer"]] if state["normalizer"] else []
        state["normalizer"] = {"type": "Sequence", "normalizers": [unmark, *own]}
        for token in state["added_tokens"]:
            token["normalized"] &= not token["special"]
        backend = Backend.from_str(json.dumps(state))
        backend.no_truncation()
        backend.no_padding()
        return backend

    @cached_property
    def _unspaced(self) -> Backend | None:
        """The tokenizer that drops marks and puts no space before a text; None if it puts none anyway."""
        state = json.loads(self._unmarking.to_str())
        unspaced = _without_prefix(state)
        return Backend.from_str(json.dumps(unspaced)) if unspaced != state else None

    def _render(self, messages: Sequence[Message], where: str, asking: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), chat_template=self.template, tokenize=False, add_generation_prompt=asking
                )
            )
        except TemplateError as error:
            raise CoolbitsError(f"{where}: the chat template refuses the conversation ({error})") from None


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds the longest of the texts that begin at a place; none at all if there are none."""
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or r"(?!)")


def _without_prefix(part: Any) -> Any:
    """Return a part of a tokenizer's JSON without what puts a space before a text."""
    if isinstance(part, list):
        return [_without_prefix(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {name: _without_prefix(value) for name, value in part.items()} | _NO_PREFIX.get(str(part.get("type")), {})
