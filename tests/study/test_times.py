import os

import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.study.times import put_in_order

PARENT = make_node("corpus", "parent", {"text": "old"}, {})
CHILD = make_node("shards", "child", {"size": 1}, {"corpus": PARENT.ref})
FIGURE = make_node("figure", "figure", {}, {"shards": CHILD.ref})


@pytest.fixture
def store(tmp_path):
    """Three artifacts, each made from the one before, and all of the same age."""
    store = Store(tmp_path, Slice("coolbits.data", {}))
    for node in (PARENT, CHILD, FIGURE):
        store.ensure(node, write)
        set_time(store, node, 100)
    return store


def write(directory):
    (directory / "content.txt").write_text("content")
    return {}


def set_time(store, node, seconds):
    for path in store.directory(node).iterdir():
        os.utime(path, (seconds, seconds))


def times(store, node):
    return {path.name: path.stat().st_mtime for path in store.directory(node).iterdir()}


def settle(store, *nodes):
    for node in nodes:
        put_in_order(Job(node.kind, node.name, (node,)), store)


def test_a_manifest_that_looks_older_than_its_parent_gets_the_parents_time(store):
    set_time(store, PARENT, 200)
    settle(store, PARENT, CHILD)
    assert times(store, CHILD)["manifest.json"] == 200
    assert times(store, CHILD)["content.txt"] == 100


def test_order_is_restored_down_the_line_with_every_file_of_a_figure(store):
    set_time(store, PARENT, 200)
    settle(store, PARENT, CHILD, FIGURE)
    assert set(times(store, FIGURE).values()) == {200}


def test_times_in_order_stay(store):
    set_time(store, CHILD, 300)
    settle(store, PARENT, CHILD)
    assert times(store, CHILD)["manifest.json"] == 300


def test_what_was_made_from_another_parent_keeps_its_time(store):
    content = store.directory(PARENT) / "content.txt"
    content.write_text("damaged")
    store.ensure(PARENT, lambda directory: write(directory) | {"note": "made anew, with another result"})
    set_time(store, PARENT, 200)
    settle(store, CHILD)
    assert times(store, CHILD)["manifest.json"] == 100


def test_what_is_damaged_keeps_its_time(store):
    (store.directory(CHILD) / "content.txt").write_text("damaged")
    set_time(store, CHILD, 100)
    set_time(store, PARENT, 200)
    settle(store, CHILD)
    assert times(store, CHILD)["manifest.json"] == 100


def test_what_other_code_made_keeps_its_time(store):
    set_time(store, PARENT, 200)
    settle(Store(store.root, Slice("coolbits.data", {"coolbits.data": "changed"})), CHILD)
    assert times(store, CHILD)["manifest.json"] == 100


@pytest.mark.parametrize("missing", [PARENT, CHILD])
def test_what_is_missing_is_no_error(store, missing):
    set_time(store, PARENT, 200)
    (store.directory(missing) / "manifest.json").unlink()
    settle(store, CHILD)
    assert (store.directory(missing) / "manifest.json").exists() is False
