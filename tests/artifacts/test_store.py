import json
import os
from pathlib import Path

import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.manifest import damaged_files, read_manifest
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store, accept, demand_folder

CODE = Slice("coolbits.stage", {"coolbits.stage": "a" * 64})
OTHER_CODE = Slice("coolbits.stage", {"coolbits.stage": "b" * 64})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, CODE)


@pytest.fixture
def corpus():
    return make_node("corpus", "english", {"salt": "x"}, {})


def write(text):
    def build(directory):
        (directory / "text").write_text(text)
        return {"letters": len(text)}

    return build


def refuse(_directory):
    raise AssertionError("built again")


def test_an_artifact_is_made_once(store, corpus):
    assert store.ensure(corpus, write("hello"))
    assert not store.ensure(corpus, refuse)
    manifest = read_manifest(store.directory(corpus))
    assert manifest.summary == {"outcome": "complete", "letters": 5}
    assert manifest.files["text"]["bytes"] == 5


def test_a_deleted_manifest_is_put_back_without_work(store, corpus):
    store.ensure(corpus, write("hello"))
    path = store.directory(corpus) / "manifest.json"
    before = path.read_bytes()
    path.unlink()
    assert not store.ensure(corpus, refuse)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"hellO", b"hell", b"hello!"], ids=["flipped", "truncated", "longer"])
def test_a_damaged_file_is_made_again(store, corpus, damage):
    store.ensure(corpus, write("hello"))
    path = store.directory(corpus) / "text"
    path.write_bytes(damage)
    assert damaged_files(store.directory(corpus), read_manifest(store.directory(corpus))) == ["text"]
    assert store.ensure(corpus, write("hello"))
    assert path.read_bytes() == b"hello"


def test_other_code_makes_it_again_unless_accepted(store, corpus):
    store.ensure(corpus, write("hello"))
    newer = Store(store.root, OTHER_CODE)
    assert not newer.is_current(corpus)
    accept(store.directory(corpus), OTHER_CODE, "me", "only a log line changed")
    assert not newer.ensure(corpus, refuse)
    assert json.loads((store.directory(corpus) / "accepted.json").read_text())["why"] == "only a log line changed"


def test_a_child_is_made_again_when_its_parent_has_other_bytes(store, corpus):
    child = make_node("tokenizer", "bpe", {}, {"corpus": corpus.ref})
    store.ensure(corpus, write("hello"))
    store.ensure(child, write("tokens"))
    (store.directory(corpus) / "text").unlink()
    store.ensure(corpus, write("world"))
    assert store.ensure(child, write("tokens"))


@pytest.fixture
def child(store, corpus):
    """A node whose parent is made."""
    store.ensure(corpus, write("hello"))
    return make_node("tokenizer", "bpe", {}, {"corpus": corpus.ref})


@pytest.mark.parametrize("name", ["text", "manifest.json", "record.json"])
def test_nothing_is_made_of_a_damaged_parent(store, corpus, child, name):
    path = store.directory(corpus) / name
    path.write_text(path.read_text().replace("l", "L", 1))
    with pytest.raises(CoolbitsError, match=corpus.name):
        store.ensure(child, refuse)
    assert not store.directory(child).exists()


def test_nothing_is_made_of_a_parent_of_another_recipe(store, corpus, child):
    other = make_node("corpus", "english", {"salt": "y"}, {})
    store.directory(corpus).rename(store.directory(other))
    grandchild = make_node("tokenizer", "bpe", {}, {"corpus": other.ref})
    with pytest.raises(CoolbitsError, match="made by another recipe than the one that is asked for"):
        store.ensure(grandchild, refuse)


def test_a_manifest_that_is_not_the_records_is_put_back(store, corpus):
    store.ensure(corpus, write("hello"))
    path = store.directory(corpus) / "manifest.json"
    before = path.read_bytes()
    for content in (before.replace(b'"letters": 5', b'"letters": 6'), b"{", b"\xff", b"[]"):
        path.write_bytes(content)
        assert not store.ensure(corpus, refuse)
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["record.json", "throughput.parquet"])
def test_what_nothing_vouches_for_is_made_again(store, corpus, name):
    def build(directory):
        (directory / "throughput.parquet").write_text("fast")
        return {}

    store.ensure(corpus, build)
    path = store.directory(corpus) / name
    path.write_text(path.read_text().replace("a", "b", 1))
    assert store.ensure(corpus, build)


def test_a_damaged_acceptance_accepts_nothing(store, corpus):
    store.ensure(corpus, write("hello"))
    accept(store.directory(corpus), OTHER_CODE, "me", "only a log line changed")
    path = store.directory(corpus) / "accepted.json"
    path.write_text(path.read_text().replace("log", "fog"))
    assert not Store(store.root, OTHER_CODE).is_current(corpus)


def test_the_manifest_does_not_depend_on_when_or_by_which_code_it_was_made(tmp_path, corpus):
    first, second = Store(tmp_path / "a", CODE), Store(tmp_path / "b", OTHER_CODE)
    for store in (first, second):
        store.ensure(corpus, write("hello"))
    assert read_manifest(first.directory(corpus)).digest == read_manifest(second.directory(corpus)).digest


def test_a_failed_build_leaves_nothing(store, corpus):
    def fail(directory):
        (directory / "half").write_text("x")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        store.ensure(corpus, fail)
    assert not store.directory(corpus).exists()


def test_a_missing_parent_is_named(store, corpus):
    child = make_node("tokenizer", "bpe", {}, {"corpus": corpus.ref})
    with pytest.raises(CoolbitsError, match=f"{corpus.name}.*no such artifact"):
        store.ensure(child, write("tokens"))


def test_names_are_readable_and_carry_the_fingerprint(corpus):
    assert corpus.name == f"english-{corpus.fingerprint[:8]}"


def test_a_results_folder_has_a_name_that_libraries_can_open(tmp_path):
    demand_folder(tmp_path / "résultats")
    latin = Path(os.fsdecode(b"r\xe9sultats"))
    with pytest.raises(CoolbitsError, match=r"sultats: not valid UTF-8, which libraries take names for; rename the"):
        demand_folder(tmp_path / latin)
