"""A saved state is used by just the recipe, the code and the parents that it was saved under."""

from pathlib import Path

import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.loops.ownership import belongs, is_whole, mark, owner_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, Slice("stage", {"stage": "one"}))


@pytest.fixture
def node(store: Store) -> Node:
    parent = make_node("shards", "made", {}, {})
    store.ensure(parent, lambda out: {})
    return make_node("checkpoint", "run", {"step": 1}, {"shards": parent.ref})


def test_the_owner_is_the_recipe_the_code_and_the_parents(store: Store, node: Node) -> None:
    parent = store.manifest(node, "shards").digest
    assert owner_of(node, store, "recipe") == {"recipe": "recipe", "code": store.code.digest, "shards": parent}


def test_a_state_belongs_to_whom_it_was_marked_with(store: Store, node: Node, tmp_path: Path) -> None:
    owner = owner_of(node, store, "recipe")
    mark(tmp_path, owner)
    assert belongs(tmp_path, owner)
    other_code = Store(store.root, Slice("stage", {"stage": "two"}))
    assert not belongs(tmp_path, owner_of(node, other_code, "recipe"))
    assert not belongs(tmp_path, owner_of(node, store, "another"))


def test_a_state_is_whole_until_a_byte_of_it_is_another(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("hello")
    mark(tmp_path, {"recipe": "recipe"})
    assert is_whole(tmp_path)
    (tmp_path / "weights").write_text("hellO")
    assert not is_whole(tmp_path)
    (tmp_path / "weights").unlink()
    assert not is_whole(tmp_path)
    assert belongs(tmp_path, {"recipe": "recipe"})


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\ud800"])
def test_a_state_without_a_readable_owner_is_nobodys(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "owner.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert not belongs(tmp_path, {"recipe": "recipe"})
