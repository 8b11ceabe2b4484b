"""Files of a dataset's repository by name, and the commit that they are read at."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.corpus import build_corpus
from coolbits.data.sources import open_documents
from coolbits.study.recipes.data import Corpus, HubSource


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset of three files, two of them in a folder, which the library opens like one on the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    root = tmp_path / "repository"
    (root / "en").mkdir(parents=True)
    for name in ("first", "en/second", "en/third"):
        lines = [f'{{"text": "{name} {number}"}}\n' for number in range(3)]
        (root / f"{name}.jsonl").write_text("".join(lines))
    (root / "README.md").write_text("---\nconfigs:\n- config_name: one\n  data_files: first.jsonl\n---\n")
    return str(root)


def texts(source: HubSource) -> list[str]:
    return [document.text for document in open_documents(source, []).items]


def test_the_files_named_are_read_in_their_order(repository: str) -> None:
    source = HubSource(id=repository, files=("en/third.jsonl", "en/second.jsonl"))
    assert texts(source) == [f"en/{name} {number}" for name in ("third", "second") for number in range(3)]
    assert texts(source.model_copy(update={"documents": 4}))[3:] == ["en/second 0"]
    assert texts(HubSource(id=repository, config="one"))[0] == "first 0"


def test_a_file_that_is_not_there_is_named(repository: str) -> None:
    with pytest.raises(CoolbitsError, match=r"there are not all of the files en/fourth\.jsonl"):
        open_documents(HubSource(id=repository, files=("en/fourth.jsonl",)), [])


def test_a_corpus_is_made_of_them_alone(repository: str, tmp_path: Path) -> None:
    source = HubSource(id=repository, files=("en/second.jsonl", "en/third.jsonl"))
    summary = build_corpus(Corpus(source=source, validation_fraction=0.5, salt="both"), [], tmp_path)
    assert summary["documents"] == 6


COMMITS = ("0123456789" * 4, "9876543210" * 4)


class PlayedBuilder:
    """What `datasets.load_dataset_builder` gives, and its stream, as far as they are looked at: rows of one commit."""

    info = SimpleNamespace(splits={})

    def __init__(self, commit: str) -> None:
        self.hash = commit

    def as_streaming_dataset(self, _split: str) -> "PlayedBuilder":
        return self

    def __iter__(self) -> Iterator[dict[str, str]]:
        return ({"text": f"{number} of {self.hash}"} for number in range(12))


def test_the_commit_that_a_branch_named_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Corpus(source=HubSource(id="a/b"), validation_fraction=0.5)
    for commit in COMMITS:
        monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, commit=commit, **__: PlayedBuilder(commit))
        out = tmp_path / commit
        out.mkdir()
        assert build_corpus(recipe, [], out)["commit"] == commit


def test_a_commit_that_no_one_knows_is_null(repository: str, tmp_path: Path) -> None:
    source = HubSource(id=repository, files=("en/second.jsonl", "en/third.jsonl"))
    summary = build_corpus(Corpus(source=source, validation_fraction=0.5, salt="both"), [], tmp_path)
    assert "commit" in summary and summary["commit"] is None


def test_another_commit_than_the_one_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of the hub's reach, the library gives what it prepared last."""
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: PlayedBuilder(COMMITS[1]))
    with pytest.raises(CoolbitsError, match=f"no copy is cached of {COMMITS[0]}, only of {COMMITS[1]}"):
        open_documents(HubSource(id="a/b", revision=COMMITS[0]), [])
    assert texts(HubSource(id="a/b", revision=COMMITS[1]))[0] == f"0 of {COMMITS[1]}"
