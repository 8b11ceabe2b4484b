"""The study's data become nodes whose identity is that of every file read, wherever the files lie."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.data_choices import Data, FileCorpus, LocalTokenizer
from coolbits.study.recipes import data as recipes
from coolbits.study.sources import DataNodes, data_nodes, text_source

_FILES = {
    "tokenizer.json": "{}",
    "tokenizer_config.json": '{"eos_token": "<a>"}',
    "special_tokens_map.json": '{"eos_token": "<a>"}',
    "chat_template.jinja": "{{ messages[0].content }}",
    "additional_chat_templates/tool.jinja": "{{ tools }}",
    "config.json": '{"model_type": "llama"}',
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tokenizer directory; nothing here opens it."""
    directory = tmp_path / "own"
    (directory / "additional_chat_templates").mkdir(parents=True)
    for name, content in _FILES.items():
        (directory / name).write_text(content)
    return directory


def nodes(directory: Path) -> DataNodes:
    """Resolve the embedded corpus in the tokens of a local tokenizer."""
    return data_nodes(Data(tokenizer=LocalTokenizer(path=str(directory), vocabulary_size=300)), directory.parent)


@pytest.mark.parametrize("name", _FILES)
def test_every_file_that_a_local_tokenizer_is_read_from_is_part_of_its_identity(own, name):
    before = nodes(own)
    (own / name).write_text(_FILES[name].replace("{", "{ ", 1))
    changed = nodes(own)
    assert changed.corpus == before.corpus
    for role in ("tokenizer", "shards"):
        assert changed.parents[role].fingerprint != before.parents[role].fingerprint


def test_a_file_more_is_another_tokenizer_unless_it_is_none_of_its_files(own):
    before = nodes(own).parents
    (own / "README.md").write_text("What this is.")
    assert nodes(own).parents == before
    (own / "added_tokens.json").write_text("{}")
    assert nodes(own).parents["tokenizer"] != before["tokenizer"]


def test_a_local_tokenizer_keeps_its_identity_where_its_folder_moves(own):
    before = nodes(own)
    assert before.locations["tokenizer"] == [str(own)]
    (own.parent / "elsewhere").mkdir()
    moved = own.rename(own.parent / "elsewhere" / "own")
    assert nodes(moved).parents == before.parents


def test_a_local_tokenizer_without_tokenizer_json_is_refused(own):
    (own / "tokenizer.json").unlink()
    with pytest.raises(CoolbitsError, match=r"data\.tokenizer\.path: .*own/tokenizer\.json is no file"):
        nodes(own)


def test_a_local_tokenizer_needs_a_digest_a_file():
    with pytest.raises(ValidationError, match="2 names but 1 digests"):
        recipes.LocalTokenizer(names=("tokenizer.json", "tokenizer_config.json"), sha256=("0" * 64,))


def test_a_link_to_a_file_counts_under_its_own_name(tmp_path: Path) -> None:
    """So caches of datasets lay them out: a name for people, and a blob by its digest."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab12cd").write_text('{"text": "Some words."}')
    link = tmp_path / "docs.jsonl"
    link.symlink_to(Path("blobs") / "ab12cd")
    source, label, paths = text_source(FileCorpus(kind="files", paths=("docs.jsonl",)), tmp_path, "data.corpus.paths")
    assert (source.names, label, paths) == (("docs.jsonl",), "docs", [link])
