"""A conversation as tokens, and which of them the model is to learn.

The text is rendered turn by turn: what a turn adds to the rendering of all turns before it is tokenized on its own. So
the prompt has the tokens that it has when a model is asked, and the mask begins and ends at whole tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.finetuning import LossOn

ROLES = ("system", "user", "assistant")
_ASSISTANT = "assistant"

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
            CoolbitsError: if the conversation has no assistant's turn, or the template does not render turn by turn or
                does not say where a turn ends.
        """
        pieces = self.pieces(messages, where)
        parts = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in pieces]
        tokens = np.concatenate([np.array(part, np.int32) for part in parts])[: self.sequence_length]
        marks = [np.full(len(part), learned) for part, (_, learned) in zip(parts, pieces, strict=True)]
        learned = np.concatenate(marks)[: self.sequence_length]
        learned[0] = False  # nothing precedes it from which it could be predicted
        end = int(learned.nonzero()[0].max(initial=-1)) + 1
        return Example(tokens[:end], learned[:end]) if end else None

    def pieces(self, messages: Sequence[Message], where: str = "messages") -> list[tuple[str, bool]]:
        """Return the rendered text in pieces, up to the end of the last answer, each with whether it is learned.

        A learned piece is an answer and the token that ends it: what the template puts behind the words that ask for
        the answer, up to the last character that is no white space.
        """
        answers = [place for place, message in enumerate(messages) if message["role"] == _ASSISTANT]
        if not answers:
            raise CoolbitsError(f"{where}: the conversation has no turn of the assistant, so there is nothing to learn")
        pieces: list[tuple[str, bool]] = []
        done = ""
        for place in answers if self.loss_on == "all" else answers[-1:]:
            prompt = self._render(messages[:place], asking=True)
            whole = self._render(messages[: place + 1], asking=False)
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

    def _render(self, messages: Sequence[Message], asking: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), chat_template=self.template, tokenize=False, add_generation_prompt=asking
            )
        )
