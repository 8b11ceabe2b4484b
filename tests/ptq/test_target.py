"""Places that take no folder are found before the work, and nothing is left there."""

import os
from pathlib import Path

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.target import check_target


@pytest.mark.parametrize("out", ["new", "deep/er/new"])
def test_a_place_that_takes_a_folder_stays_as_it_is(tmp_path: Path, out: str) -> None:
    check_target(tmp_path / out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_stands_there_is_left_alone(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    {"folder": out.mkdir, "file": out.touch, "broken link": lambda: out.symlink_to("none")}[kind]()
    with pytest.raises(CoolbitsError, match="out: exists already; choose another --out"):
        check_target(out)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a" * 242, "too long a name"),
        ("a" * 300 + "/new", "too long a name"),
        (os.fsdecode(b"caf\xe9"), "not valid UTF-8"),
    ],
    ids=["no room for what is beside it", "no name", "Latin-1"],
)
def test_a_name_that_files_cannot_have_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    check_target(tmp_path / ("a" * 241))
    with pytest.raises(CoolbitsError, match=f"^--out .*: {reason}"):
        check_target(tmp_path / name)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CoolbitsError, match=r"^--out \S+/file/new/er: \S+/file: a file is where a folder should be"):
        check_target(tmp_path / "file" / "new" / "er")


def test_a_link_that_leads_nowhere_takes_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none")
    with pytest.raises(CoolbitsError, match=r"/link/new: \S+/link: nothing may be written there"):
        check_target(tmp_path / "link" / "new")


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of others, or on a disk that is mounted for reading alone."""
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path or not mode & os.W_OK)
    with pytest.raises(CoolbitsError, match=r"^--out \S+/new/er: \S+: nothing may be written there; choose another"):
        check_target(tmp_path / "new" / "er")
