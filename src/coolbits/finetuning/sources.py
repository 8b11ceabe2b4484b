"""Conversations of a recipe, one at a time, wherever they lie, each in one of the two splits."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, assert_never

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data import Split
from coolbits.data.documents import count_documents
from coolbits.data.formats import Row, read_rows
from coolbits.data.hub import open_dataset
from coolbits.data.sources import Contents, check_digest
from coolbits.finetuning.encoding import ASSISTANT, ROLES, UNANSWERED, Message
from coolbits.finetuning.questions import questions
from coolbits.study.recipes.data import HubSource
from coolbits.study.recipes.finetuning import BuiltQuestions, ConversationSource, FileConversations, HubConversations

MESSAGES = "messages"
_SPLITS: tuple[Split, Split] = ("train", "validation")
_HALF = 8


class Conversation(NamedTuple):
    """One conversation: its split, its place in a random order, where it stands (for messages), what is said.

    `reached` says how far into the source it is.
    """

    split: Split
    order: int
    where: str
    messages: list[Message]
    reached: int


def find_conversations(
    source: ConversationSource, corpus: Path | None, files: Sequence[Path]
) -> Contents[Conversation]:
    """Open the conversations of a source; `files` are those of a `FileConversations`, in the order of its names.

    Order, and for files and the hub the split, come from a hash of seed and messages: they do not change with the order
    of the rows, and equal conversations are never in both splits.

    Raises:
        CoolbitsError: if a file is not the one that the recipe names, the hub refuses, or a row is no conversation.
    """
    match source:
        case BuiltQuestions():
            if corpus is None:
                raise CoolbitsError("data: questions are built from a corpus, and none was given")
            return Contents(_built(source, corpus), count_documents(corpus), "documents")
        case FileConversations():
            for path, digest in zip(files, source.sha256, strict=True):
                check_digest(path, digest)
            return Contents(_of_files(source, files), sum(path.stat().st_size for path in files), "bytes")
        case HubConversations():
            fields = {"id": source.id, "config": source.config, "split": source.split, "revision": source.revision}
            opened = open_dataset(HubSource(**fields, text_field=MESSAGES))
            items = (_conversation(row, source, row.reached) for row in opened.rows)
            return Contents(items, opened.total, "conversations", {"commit": opened.commit})
        case _:
            assert_never(source)


def _built(source: BuiltQuestions, corpus: Path) -> Iterator[Conversation]:
    before = number = 0
    for split in _SPLITS:
        for number, messages in questions(corpus, split):
            order, _ = _hashes(source.seed, messages)
            yield Conversation(split, order, f"{split} document {number}", messages, before + number)
        before += number


def _of_files(source: FileConversations, files: Sequence[Path]) -> Iterator[Conversation]:
    before = 0
    for path, name in zip(files, source.names, strict=True):
        for row in read_rows(path, name, MESSAGES):
            yield _conversation(row, source, before + row.reached)
        before += path.stat().st_size


def _conversation(row: Row, source: FileConversations | HubConversations, reached: int) -> Conversation:
    messages = read_messages(row.fields, row.where)
    order, share = _hashes(source.seed, messages)
    split: Split = "validation" if share < source.validation_fraction * 2 ** (8 * _HALF) else "train"
    return Conversation(split, order, row.where, messages, reached)


def read_messages(fields: Mapping[str, Any], where: str) -> list[Message]:
    """Return the messages of a row, role and content alone.

    Raises:
        CoolbitsError: if the row has none, one without text or of a role that is unknown, or no answer.
    """
    found = fields.get(MESSAGES)
    if not isinstance(found, list) or not found:
        raise CoolbitsError(f"{where}: there is no list of messages under the key `{MESSAGES}`")
    messages = []
    for place, message in enumerate(found):
        role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, dict) else (None, None)
        if role not in ROLES:
            raise CoolbitsError(f"{where}: message {place} has the role {role!r}; allowed are {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise CoolbitsError(f"{where}: message {place} has no text under the key `content`")
        try:
            content.encode()
        except UnicodeEncodeError:
            said = "half a character (one surrogate) under the key `content`; text must be Unicode"
            raise CoolbitsError(f"{where}: message {place} has {said}") from None
        messages.append({"role": role, "content": content})
    if all(message["role"] != ASSISTANT for message in messages[1:]):
        raise CoolbitsError(f"{where}: {UNANSWERED}")
    return messages


def _hashes(seed: int, messages: list[Message]) -> tuple[int, int]:
    """Return two independent hashes of 64 bits: one to order by, one to split by."""
    digest = blake2b(f"{seed}\n{json.dumps(messages)}".encode(), digest_size=2 * _HALF).digest()
    return int.from_bytes(digest[:_HALF], "big"), int.from_bytes(digest[_HALF:], "big")
