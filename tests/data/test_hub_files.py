"""Files of a dataset's repository by name."""

from pathlib import Path

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
