import os
from pathlib import Path

import pytest

from coolbits.artifacts.job import Job
from coolbits.artifacts.node import make_node
from coolbits.study import board as module
from coolbits.study.board import Board


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test sets it."""
    now = {"seconds": 1000.0}
    monkeypatch.setattr(module, "time", lambda: now["seconds"])
    return now


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "work" / "board.json")


def job(name):
    return Job("checkpoint", name, (make_node("checkpoint", name, {"name": name}, {}),))


def finish(finished, root):
    for node in finished.nodes:
        node.directory(root).mkdir(parents=True)
        (node.directory(root) / "manifest.json").write_text("{}")


def test_the_time_left_is_what_the_work_left_takes_at_the_pace_so_far(board, clock, tmp_path):
    first, second, third = job("first"), job("second"), job("third")
    board.post([(first, 10.0), (second, 20.0), (third, 70.0)], tmp_path)
    clock["seconds"] += 30
    assert board.line("first") == "study: 1 of 3 jobs, 10% of the work done, about 4 min left"
    finish(first, tmp_path)
    clock["seconds"] += 30
    assert board.line("second") == "study: 2 of 3 jobs, 30% of the work done, about 2 min left"
    finish(second, tmp_path)
    clock["seconds"] += 40
    assert board.line("third") == "study: 3 of 3 jobs, 100% of the work done, about 0 s left"


def test_what_was_made_before_the_board_was_posted_is_still_to_do(board, clock, tmp_path):
    old, new = job("old"), job("new")
    finish(old, tmp_path)
    clock["seconds"] = (old.nodes[0].directory(tmp_path) / "manifest.json").stat().st_mtime + 1
    board.post([(old, 90.0), (new, 10.0)], tmp_path)
    assert board.line("new").startswith("study: 1 of 2 jobs, 10% of the work done")


def test_a_job_that_is_not_on_the_board_gives_no_line(board, clock, tmp_path):
    board.post([(job("new"), 10.0)], tmp_path)
    assert board.line("other") is None


@pytest.mark.parametrize("place", ["board", "manifest"])
def test_what_cannot_be_looked_at_does_not_fail_a_job_whose_work_is_done(board, clock, tmp_path, monkeypatch, place):
    """The board may be another user's who works in the same results; a manifest, made anew by another run just then."""
    mine, other = job("mine"), job("other")
    board.post([(mine, 10.0), (other, 10.0)], tmp_path)
    finish(other, tmp_path)
    closed, look = board.path if place == "board" else other.nodes[0].directory(tmp_path) / "manifest.json", os.stat

    def refuse(path, *arguments, **named):
        if path == closed:
            raise (PermissionError if place == "board" else FileNotFoundError)(str(path))
        return look(path, *arguments, **named)

    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr("os.stat", refuse)
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path) and path.open("rb").read())
    said = board.line("mine")
    assert said is None if place == "board" else said.startswith("study: 1 of 2 jobs, 50% of the work done")


def test_too_little_done_to_tell_gives_no_estimate(board, clock, tmp_path):
    board.post([(job("short"), 1.0), (job("long"), 99.0)], tmp_path)
    assert board.line("short") == "study: 1 of 2 jobs, 1% of the work done"


@pytest.mark.parametrize("content", [None, "", "{"])
def test_without_a_readable_board_there_is_no_line(board, content):
    if content is not None:
        board.path.parent.mkdir()
        board.path.write_text(content)
    assert board.line("any") is None
