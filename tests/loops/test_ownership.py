"""A saved state is used by just the recipe, the code and the parents that it was saved under."""

from pathlib import Path

import pytest
import torch

from coolbits.artifacts.code import Slice
from coolbits.artifacts.environment import cpu_name
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.loops.ownership import belongs, is_whole, mark, owner_of, usable


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


def test_a_state_is_usable_if_it_is_its_owners_and_whole(store: Store, node: Node, tmp_path: Path) -> None:
    owner, state = owner_of(node, store, "recipe"), tmp_path / "state"
    state.mkdir()
    assert not usable(state, owner)
    mark(state, owner)
    assert usable(state, owner)
    assert not usable(state, owner | {"recipe": "another"})
    (state / "more").write_text("since")
    assert not usable(state, owner)


def test_going_on_from_what_another_processor_saved_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    mark(tmp_path, {"recipe": "recipe"})
    assert usable(tmp_path, {"recipe": "recipe"})
    assert not caplog.messages
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert usable(tmp_path, {"recipe": "recipe"})
    one, two = (f"{cpu_name()}, {threads}, PyTorch {torch.__version__}" for threads in ("1 thread", "2 threads"))
    assert caplog.messages == [f"{tmp_path}: saved on {one}; here, on {two}, last bits may come out otherwise"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\ud800"])
def test_a_state_without_a_readable_owner_is_nobodys(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "owner.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert not belongs(tmp_path, {"recipe": "recipe"})
