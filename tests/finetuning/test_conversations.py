"""The stage of conversations: as many as are wanted, the same each time, those without an answer left out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.data.formats import Row
from coolbits.data.hub import Opened
from coolbits.finetuning.conversations import Smallest, build_conversations, run
from coolbits.finetuning.examples import read_examples
from coolbits.finetuning.sources import Conversation
from coolbits.study.recipes.finetuning import Conversations, FileConversations, HubConversations

Chat = Callable[..., list[dict[str, str]]]


@pytest.fixture
def opened(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The tokenizer's directory."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def lines(tmp_path: Path, conversation: Chat) -> Path:
    """A file of 100 conversations, of which every fifth has an answer far behind all others', and one stands twice."""
    path = tmp_path / "chat.jsonl"
    asked = [f"is it {number}? {'well? ' * 60 * (number % 5 == 0)}" for number in range(100)]
    rows = [{"messages": conversation(("user", question), ("assistant", "yes"))} for question in [*asked, asked[1]]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(path: Path, **changes: Any) -> Conversations:
    named = {"names": (path.name,), "sha256": (file_digest(path),)}
    chosen = FileConversations(**named | {"examples": 40, "validation_fraction": 0.2, "seed": 0} | changes)
    return Conversations(source=chosen, template="plain", loss_on="last", sequence_length=40)


def build(path: Path, tokenizer: Path, out: Path, **changes: Any) -> dict[str, Any]:
    out.mkdir()
    return build_conversations(recipe(path, **changes), tokenizer, None, [path], out)


def test_just_as_many_as_wanted_are_kept(lines: Path, opened: Path, tmp_path: Path) -> None:
    summary = build(lines, opened, tmp_path / "out", examples=40, validation_examples=7)
    assert (summary["train_conversations"], summary["validation_conversations"]) == (40, 7)
    train = read_examples(tmp_path / "out", "train")
    assert len(train) == 40 and len(train.tokens) == summary["train_tokens"]
    assert summary["train_longest"] <= 40
    assert train.learned.sum() == summary["train_learned_tokens"]


def test_all_held_out_conversations_are_kept_if_no_number_is_given(lines: Path, opened: Path, tmp_path: Path) -> None:
    counts = [
        build(lines, opened, tmp_path / f"out{most}", validation_examples=most)["validation_conversations"]
        for most in (None, 1000)
    ]
    assert counts[0] == counts[1] > 7


def test_a_conversation_that_stands_twice_is_kept_once(lines: Path, opened: Path, tmp_path: Path) -> None:
    build(lines, opened, tmp_path / "out", examples=60)
    found = [read_examples(tmp_path / "out", split) for split in ("train", "validation")]
    texts = [tuple(examples[index].tokens.tolist()) for examples in found for index in range(len(examples))]
    assert len(texts) == len(set(texts))


def test_the_same_recipe_gives_the_same_bytes(lines: Path, opened: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(lines, opened, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["chat_template.jinja", "train.parquet", "validation.parquet"]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_too_few_conversations_are_refused(lines: Path, opened: Path, tmp_path: Path) -> None:
    message = r"data\.examples: 90 train conversations with an answer within 40 tokens are wanted"
    with pytest.raises(CoolbitsError, match=message):
        build(lines, opened, tmp_path / "out", examples=90)


def test_the_job_finds_files_by_their_digest(lines: Path, opened: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "results", Slice("test", {}))
    tokenizer = make_node("tokenizer", "made", {}, {})
    store.ensure(tokenizer, lambda out: shutil.copytree(opened, out, dirs_exist_ok=True) and {})
    node = make_node("conversations", "made", recipe(lines).identity(), {"tokenizer": tokenizer.ref})
    locations = {file_digest(lines): [str(lines)]}
    assert run(Job("conversations", "test", (node,), {}, locations), store) == 1
    assert read_manifest(store.directory(node)).summary["train_conversations"] == 40
    other = make_node("conversations", "other", recipe(lines, seed=1).identity(), {"tokenizer": tokenizer.ref})
    with pytest.raises(CoolbitsError, match="0 paths for the 1 files"):
        run(Job("conversations", "test", (other,)), store)


def test_the_first_in_the_random_order_are_kept_whatever_comes_first() -> None:
    found = [Conversation("train", order, "", [], 0) for order in (5, 3, 9, 3, 1, 7)]
    for arrival in (found, found[::-1]):
        kept = Smallest(3)
        for conversation in arrival:
            kept.add(conversation)
        assert [conversation.order for conversation in kept.in_order()] == [1, 3, 5]
        assert len(kept) == 3


@pytest.mark.parametrize("commit", ["0123456789" * 4, None])
def test_the_commit_of_conversations_of_the_hub_is_kept(
    commit: str | None, opened: Path, tmp_path: Path, conversation: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [conversation(("user", f"is it {number}?"), ("assistant", "yes")) for number in range(50)]
    rows = (Row(f"row {number}", {"messages": messages}, number) for number, messages in enumerate(said, start=1))
    monkeypatch.setattr("coolbits.finetuning.sources.open_dataset", lambda _: Opened(50, rows, commit))
    source = HubConversations(id="a/b", split="train", revision="main", examples=20, validation_fraction=0.2, seed=0)
    wanted = Conversations(source=source, template="plain", loss_on="last", sequence_length=40)
    (tmp_path / "out").mkdir()
    assert build_conversations(wanted, opened, None, [], tmp_path / "out")["commit"] == commit
