import os
import time
from pathlib import Path

import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.study.times import bring_back, put_in_order, put_pages_in_order

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


def test_times_of_the_future_become_just_now_in_the_same_order(store):
    now = time.time()
    for node, ahead in ((PARENT, 2000), (CHILD, 3000), (FIGURE, -3000)):
        set_time(store, node, now + ahead)
    bring_back([Job(node.kind, node.name, (node,)) for node in (PARENT, CHILD, FIGURE)], store.root)
    parent, child, figure = (times(store, node)["manifest.json"] for node in (PARENT, CHILD, FIGURE))
    assert now - 1 < parent < child <= time.time()
    assert figure == pytest.approx(now - 3000)


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


def test_what_another_run_moves_aside_just_then_is_no_error(store, tmp_path, monkeypatch):
    """Between two looks at a file it can be gone: whoever puts a directory in place first moves the old one away."""
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: exists(path) or path.name == "manifest.json")
    (store.directory(CHILD) / "manifest.json").unlink()
    set_time(store, PARENT, time.time() + 1000)
    bring_back([Job(node.kind, node.name, (node,)) for node in (PARENT, CHILD, FIGURE)], store.root)
    settle(store, PARENT, CHILD, FIGURE)
    put_pages_in_order({tmp_path / "page.html": store.directory(CHILD)})
    assert times(store, FIGURE)["manifest.json"] == 100


@pytest.mark.parametrize("missing", [PARENT, CHILD])
def test_what_is_missing_is_no_error(store, missing):
    set_time(store, PARENT, 200)
    (store.directory(missing) / "manifest.json").unlink()
    settle(store, CHILD)
    assert (store.directory(missing) / "manifest.json").exists() is False


def test_a_page_about_the_figure_as_it_is_gets_its_time_and_one_about_another_does_not(store, tmp_path):
    figure, page = store.directory(FIGURE), tmp_path / "page.html"
    for text, seconds in ((read_manifest(figure).digest, 100), ("of another figure", 50)):
        page.write_text(text)
        os.utime(page, (50, 50))
        put_pages_in_order({page: figure})
        assert page.stat().st_mtime == seconds


def test_a_page_about_another_figure_is_outdated_by_the_figure_however_new_it_looks(store, tmp_path):
    """As where results were copied one after the other, before and after the figure was drawn anew."""
    figure, page = store.directory(FIGURE), tmp_path / "page.html"
    for text, older in ((read_manifest(figure).digest, False), ("of another figure", True)):
        page.write_text(text)
        put_pages_in_order({page: figure})
        assert (page.stat().st_mtime_ns < (figure / "manifest.json").stat().st_mtime_ns) == older


def test_pages_of_what_is_lost_or_damaged_keep_their_times(store, tmp_path):
    figure, page = store.directory(FIGURE), tmp_path / "page.html"
    put_pages_in_order({page: figure})
    assert not page.exists()
    page.write_text("")
    os.utime(page, (50, 50))
    (figure / "manifest.json").write_text("{")
    put_pages_in_order({page: figure})
    assert page.stat().st_mtime == 50
