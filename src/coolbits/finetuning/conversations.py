"""The stage of conversations: from whatever holds them to tokens and masks, in both splits."""

from collections.abc import Iterator, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_text
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.data import Split
from coolbits.data.tokenizers import load_tokenizer
from coolbits.finetuning.encoding import Encoder, Example
from coolbits.finetuning.examples import write_examples
from coolbits.finetuning.sources import Conversation, find_conversations
from coolbits.finetuning.templates import chat_template
from coolbits.study.recipes.finetuning import Conversations, FileConversations

TEMPLATE = "chat_template.jinja"
# Of so many times as many conversations as wanted, enough have an answer within the length.
_SPARE = 2


def run(job: Job, store: Store) -> int:
    """Make the conversations of a job that are missing; return how many artifacts were made."""
    return sum(store.ensure(node, partial(_build, node, store, job.locations)) for node in job.nodes)


def _build(node: Node, store: Store, locations: dict[str, list[str]], out: Path) -> dict[str, Any]:
    recipe = Conversations.read(node.recipe)
    digests = recipe.source.sha256 if isinstance(recipe.source, FileConversations) else ()
    files = [Path(path) for digest in digests for path in locations.get(digest, [])]
    if len(files) != len(digests):
        raise CoolbitsError(f"locations: {len(files)} paths for the {len(digests)} files of conversations")
    corpus = node.parent_directory(store.root, "corpus") if "corpus" in node.parents else None
    return build_conversations(recipe, node.parent_directory(store.root, "tokenizer"), corpus, files, out)


def build_conversations(
    recipe: Conversations, tokenizer: Path, corpus: Path | None, files: Sequence[Path], out: Path
) -> dict[str, Any]:
    """Write `train.parquet`, `validation.parquet` and the chat template to `out`; return the summary.

    Raises:
        CoolbitsError: if there are fewer conversations with an answer within the length than the recipe wants, or as
            `find_conversations` and `Encoder.encode`.
    """
    opened = load_tokenizer(tokenizer)
    template = chat_template(recipe.template, opened.chat_template)
    encoder = Encoder(opened, template, recipe.loss_on, recipe.sequence_length)
    source = recipe.source
    chosen = {"train": Smallest(_SPARE * source.examples), "validation": Smallest(_most(source.validation_examples))}
    found = find_conversations(source, corpus, files)
    for conversation in found.followed("conversations"):
        chosen[conversation.split].add(conversation)
    wanted: dict[Split, int | None] = {"train": source.examples, "validation": source.validation_examples}
    summary: dict[str, Any] = dict(found.origin)
    for split, count in wanted.items():
        examples = _encode(encoder, chosen[split].in_order(), count, split)
        if not examples or (split == "train" and len(examples) < source.examples):
            raise CoolbitsError(
                f"data.examples: {count or 'some'} {split} conversations with an answer within "
                f"{recipe.sequence_length} tokens are wanted, but {len(examples)} of {len(chosen[split])} have one"
            )
        write_examples(examples, split, out)
        summary |= {f"{split}_{name}": value for name, value in _counts(examples).items()}
    write_text(out / TEMPLATE, template)
    return summary


class Smallest:
    """The `most` conversations that come first in their random order, all if that is None, each once."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._kept: dict[int, Conversation] = {}
        self._orders: list[int] = []  # negative, so that the heap's first is the one to give up

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, conversation: Conversation) -> None:
        """Consider one more."""
        if conversation.order in self._kept:
            return
        self._kept[conversation.order] = conversation
        heappush(self._orders, -conversation.order)
        if self._most is not None and len(self._kept) > self._most:
            del self._kept[-heappop(self._orders)]

    def in_order(self) -> list[Conversation]:
        """Return them in their order."""
        return [self._kept[order] for order in sorted(self._kept)]


def _most(examples: int | None) -> int | None:
    return None if examples is None else _SPARE * examples


def _encode(encoder: Encoder, found: Sequence[Conversation], count: int | None, split: Split) -> list[Example]:
    """Encode conversations until `count` of them have an answer within the length."""
    with Progress(f"{split} conversations", len(found) if count is None else count, "conversation") as progress:

        def encoded() -> Iterator[Example]:
            for conversation in found:
                if (example := encoder.encode(conversation.messages, conversation.where)) is not None:
                    progress.advance()
                    yield example

        return list(islice(encoded(), count))


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    return {
        "conversations": len(examples),
        "tokens": sum(len(example.tokens) for example in examples),
        "learned_tokens": sum(int(example.learned.sum()) for example in examples),
        "longest": max(len(example.tokens) for example in examples),
    }
