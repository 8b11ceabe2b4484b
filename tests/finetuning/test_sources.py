"""Where conversations come from: files, and questions built from a corpus; what is no conversation."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.data.corpus import build_corpus
from coolbits.finetuning.sources import Conversation, find_conversations
from coolbits.study.recipes.data import Corpus, FileSource
from coolbits.study.recipes.finetuning import BuiltQuestions, FileConversations

Chat = Callable[..., list[dict[str, str]]]


def write_lines(path: Path, rows: list[Any]) -> FileConversations:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digests = (file_digest(path),)
    return FileConversations(names=(path.name,), sha256=digests, examples=1, validation_fraction=0.3, seed=0)


def read(source: FileConversations, path: Path) -> list[Conversation]:
    return list(find_conversations(source, None, [path]).items)


@pytest.fixture
def rows(conversation: Chat) -> list[dict[str, Any]]:
    return [{"id": n, "messages": conversation(("user", f"is it {n}?"), ("assistant", "yes"))} for n in range(200)]


def test_the_split_and_the_order_do_not_hang_on_the_order_of_rows(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "chat.jsonl"

    def found(rows: list[Any]) -> set[tuple[str, int, str]]:
        made = read(write_lines(path, rows), path)
        return {(each.split, each.order, each.messages[0]["content"]) for each in made}

    first = found(rows)
    assert found(random.Random(0).sample(rows, len(rows))) == first
    assert 30 < Counter(split for split, _, _ in first)["validation"] < 90
    assert len({order for _, order, _ in first}) == 200


def test_another_seed_holds_out_others(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "chat.jsonl"
    source = write_lines(path, rows)
    one, other = ([each.split for each in read(source.model_copy(update={"seed": seed}), path)] for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, r"line 1: there is no list of messages under the key `messages`"),
        ({"messages": []}, r"line 1: there is no list of messages"),
        ({"messages": ["hi"]}, r"message 0 has the role None; allowed are system, user, assistant"),
        ({"messages": [{"role": "tool", "content": "a"}]}, r"message 0 has the role 'tool'; allowed are system, user"),
        ({"messages": [{"role": "user"}]}, r"message 0 has no text under the key `content`"),
        ({"messages": [{"role": "user", "content": "a\ud83d"}]}, r"message 0 has half a character"),
        ({"messages": [{"role": "user", "content": "a"}]}, r"line 1: no turn of the assistant answers another"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, r"no turn of the assistant answers another"),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path: Path, row: Any, message: str) -> None:
    path = tmp_path / "chat.jsonl"
    with pytest.raises(CoolbitsError, match=message):
        read(write_lines(path, [row]), path)


def test_a_file_that_is_not_the_recipe_s_is_refused(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "chat.jsonl"
    source = write_lines(path, rows)
    path.write_text("other")
    with pytest.raises(CoolbitsError, match="its SHA-256 is"):
        read(source, path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of made sentences, a fifth of its documents held out."""
    choose = random.Random(3)
    words = ["cool", "bits", "warm", "grid", "rate", "model", "falls", "decays", "a", "the", "verylongword"]
    path = tmp_path_factory.mktemp("source") / "made.jsonl"
    texts = ["\n".join(" ".join(choose.choices(words, k=9)) + "." for _ in range(5)) for _ in range(150)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path_factory.mktemp("corpus")
    source = FileSource(names=(path.name,), sha256=(file_digest(path),))
    build_corpus(Corpus(source=source, validation_fraction=0.2), [str(path)], out)
    return out


def answer_of(question: str) -> str | None:
    """Answer a built question by reading it; None if its text does not say."""
    kind, _, shown = question.partition(": ")
    words = shown.split()
    if kind == "the first word of":
        return words[0]
    if kind == "the last word of":
        return words[-1]
    if kind == "how many words":
        return {3: "three", 4: "four", 5: "five"}[len(words)]
    if asked := re.fullmatch("the word after (.+) in", kind):
        assert words.count(asked[1]) == 1
        return words[words.index(asked[1]) + 1]
    assert kind == "the next word"
    return None


def test_built_questions_have_the_right_answers(corpus: Path) -> None:
    source = BuiltQuestions(examples=1, validation_examples=1, seed=0)
    found = list(find_conversations(source, corpus, []).items)
    kinds = Counter(each.messages[0]["content"].split(":")[0].split(" ")[1] for each in found)
    assert len(kinds) >= 4 and len(found) > 500
    for each in found:
        question, answer = (message["content"] for message in each.messages)
        assert answer_of(question) in (answer, None)


def test_the_next_word_is_that_of_the_text_and_splits_keep_to_their_documents(corpus: Path) -> None:
    from coolbits.data.documents import read_documents

    source = BuiltQuestions(examples=1, validation_examples=1, seed=0)
    texts = {split: "\n".join(read_documents(corpus, split)) for split in ("train", "validation")}
    continued = set()
    for each in find_conversations(source, corpus, []).items:
        question, answer = (message["content"] for message in each.messages)
        kind, _, shown = question.partition(": ")
        assert shown in texts[each.split]
        if kind == "the next word":
            assert f"{shown} {answer}" in texts[each.split]
            continued.add(each.split)
    assert continued == set(texts)


def test_questions_without_a_corpus_are_refused() -> None:
    with pytest.raises(CoolbitsError, match="built from a corpus"):
        find_conversations(BuiltQuestions(examples=1, validation_examples=1, seed=0), None, [])
