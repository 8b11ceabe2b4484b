"""Made documents, and the corpus, tokenizer and shards that come of them."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from coolbits.artifacts.hashing import file_digest
from coolbits.data.corpus import build_corpus
from coolbits.data.tokenizers import build_tokenizer
from coolbits.study.recipes.data import Corpus, FileSource, TrainedTokenizer

_WORDS = [
    "the",
    "cool",
    "bits",
    "of",
    "a",
    "warm",
    "model",
    "fall",
    "to",
    "the",
    "grid",
    "while",
    "its",
    "rate",
    "decays",
    "and",
    "naïve",
    "café",
    "owners",
    "watch",
    "—",
    "日本",
]

SourceOf = Callable[[str, bytes | list[str]], tuple[FileSource, list[str]]]


def made_texts(count: int, seed: int = 0) -> list[str]:
    """Return distinct small documents."""
    random_words = random.Random(seed)
    return [
        f"{number} " + " ".join(random_words.choices(_WORDS, k=random_words.randint(3, 40))) for number in range(count)
    ]


def json_lines(texts: list[str]) -> bytes:
    """Pack texts as JSON lines."""
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture
def source_of(tmp_path: Path) -> SourceOf:
    """A function that writes a file (texts become JSON lines) and gives the source that names it, and its locations."""

    def write(name: str, content: bytes | list[str]) -> tuple[FileSource, list[str]]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json_lines(content))
        return FileSource(names=(name,), sha256=(file_digest(path),)), [str(path)]

    return write


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 300 made documents, a third of them held out."""
    path = tmp_path_factory.mktemp("source") / "made.jsonl"
    path.write_bytes(json_lines(made_texts(300)))
    out = tmp_path_factory.mktemp("corpus")
    source = FileSource(names=(path.name,), sha256=(file_digest(path),))
    build_corpus(Corpus(source=source, validation_fraction=1 / 3), [str(path)], out)
    return out


@pytest.fixture(scope="session")
def tokenizer(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 300 entries trained on `corpus`."""
    out = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(TrainedTokenizer(vocabulary_size=300), corpus, None, out)
    return out
