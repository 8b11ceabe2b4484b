import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import creating, places, remove_folder, replacing, write_text


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_text_replaces_the_file_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert entries(tmp_path) == ["a.txt"]


def test_a_folder_goes_with_all_in_it_and_of_a_link_only_the_link(tmp_path):
    write_text(tmp_path / "folder" / "below" / "a.txt", "kept")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove_folder(tmp_path / "link")
    assert entries(tmp_path) == ["folder"] and entries(tmp_path / "folder" / "below") == ["a.txt"]
    remove_folder(tmp_path / "folder")
    assert entries(tmp_path) == []


def test_a_path_has_two_places_where_links_are_on_the_way(tmp_path, monkeypatch):
    (tmp_path / "disk" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "inner")
    assert places(tmp_path / "link" / "a") == (tmp_path / "link" / "a", tmp_path / "disk" / "inner" / "a")
    assert places(tmp_path / "link" / ".." / "a") == (tmp_path / "disk" / "a",) * 2
    monkeypatch.chdir(tmp_path)
    assert places(Path("link")) == (tmp_path / "link", tmp_path / "disk" / "inner")


def test_replacing_puts_the_whole_directory_in_place(tmp_path):
    target = tmp_path / "artifact"
    target.mkdir()
    (target / "stale").write_text("x")
    with replacing(target) as directory:
        (directory / "fresh").write_text("y")
        assert entries(target) == ["stale"]
    assert entries(target) == ["fresh"]
    assert entries(tmp_path) == ["artifact"]


def test_after_an_error_the_old_directory_stays(tmp_path):
    target = tmp_path / "artifact"
    target.mkdir()
    (target / "kept").write_text("x")
    with pytest.raises(RuntimeError), replacing(target) as directory:
        (directory / "half").write_text("y")
        raise RuntimeError
    assert entries(target) == ["kept"]
    assert entries(tmp_path) == ["artifact"]


def write_by_hand(directory):
    (directory / "late").write_text("y")


def make_again(directory):
    """As libraries do that miss the folder into which they save."""
    directory.mkdir()
    write_by_hand(directory)


@pytest.mark.parametrize("inner", ["", "inner"])
@pytest.mark.parametrize("making", [replacing, creating])
def test_a_file_does_not_make_again_the_directory_that_was_removed_under_it(making, inner, tmp_path):
    with pytest.raises(CoolbitsError) as refusal, making(tmp_path / "made") as directory:
        shutil.rmtree(directory)
        try:
            write_text(directory / inner / "late", "y")
        finally:
            assert entries(tmp_path) == []
    said = "removed by somebody while a job wrote to it; what it made is lost: run again"
    assert str(refusal.value) == f"{directory}: {said}"


@pytest.mark.parametrize("go_on", [write_by_hand, make_again, entries])
@pytest.mark.parametrize("making", [replacing, creating])
def test_of_a_directory_that_was_removed_nothing_is_put_in_place(making, go_on, tmp_path):
    with pytest.raises(CoolbitsError, match="removed by somebody"), making(tmp_path / "made") as directory:
        (directory / "early").write_text("x")
        shutil.rmtree(directory)
        go_on(directory)
    assert entries(tmp_path) == []


def test_an_error_in_a_directory_that_is_there_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "made") as directory:
        (directory / "absent").read_text()


def test_where_a_link_stood_it_is_replaced_and_not_what_it_led_to(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "precious").write_text("x")
    (tmp_path / "artifact").symlink_to(tmp_path / "disk")
    with replacing(tmp_path / "artifact") as directory:
        (directory / "fresh").write_text("y")
    assert entries(tmp_path / "artifact") == ["fresh"]
    assert entries(tmp_path / "disk") == ["precious"]
    assert entries(tmp_path) == ["artifact", "disk"]


def test_creating_puts_the_whole_directory_where_nothing_is(tmp_path):
    with creating(tmp_path / "deep" / "made") as directory:
        (directory / "fresh").write_text("y")
        assert not (tmp_path / "deep" / "made").exists()
    assert entries(tmp_path / "deep") == ["made"]
    assert entries(tmp_path / "deep" / "made") == ["fresh"]


def test_after_an_error_nothing_is_created(tmp_path):
    with pytest.raises(RuntimeError), creating(tmp_path / "made") as directory:
        (directory / "half").write_text("y")
        raise RuntimeError
    assert entries(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_what_appears_meanwhile_is_left_alone_and_what_was_made_is_kept(kind, tmp_path):
    target = tmp_path / "made"
    with (
        pytest.raises(CoolbitsError, match=r"made: something else was put there meanwhile, .* lies in \S+$") as refusal,
        creating(target) as directory,
    ):
        (directory / "fresh").write_text("y")
        if kind == "file":
            target.write_text("x")
        elif kind == "dangling link":
            target.symlink_to(tmp_path / "none")
        else:
            target.mkdir()
        if kind == "folder":
            (target / "precious").write_text("x")
    assert not target.is_dir() or entries(target) == (["precious"] if kind == "folder" else [])
    assert str(refusal.value).endswith(str(directory))
    assert entries(directory) == ["fresh"]


@pytest.mark.parametrize("making", [replacing, creating])
@pytest.mark.parametrize(("mask", "given"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_files_are_for_whom_the_umask_says_though_a_library_makes_them_for_their_owner_alone(
    mask, given, making, tmp_path
):
    before = os.umask(mask)
    try:
        with making(tmp_path / "artifact") as directory:
            save_file({"a": torch.zeros(1)}, directory / "weights.safetensors")
            write_text(directory / "inner" / "a.txt", "a")
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "artifact").rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_mode & 0o777 for path in made} == {"weights.safetensors": given, "a.txt": given}
