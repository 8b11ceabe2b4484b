import pytest

from coolbits.artifacts.files import replacing, write_text


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_text_replaces_the_file_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert entries(tmp_path) == ["a.txt"]


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
