"""Files that are either whole or absent: temporary name, sync, rename."""

import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Any

from coolbits.artifacts.errors import CoolbitsError

# Beside what is being replaced: `new` will take its place, `old` was there before.
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.(new|old)")
_JSON_KINDS = {dict: "keys and values", list: "a list", str: "text", bool: "true or false", NoneType: "nothing"}


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the new one, never a part.

    Folders that are missing are made.

    Raises:
        CoolbitsError: if it belongs into a directory of `replacing` or `creating` that was removed.
    """
    for folder in path.parents:
        if TEMPORARY.fullmatch(folder.name) and not folder.is_dir():
            raise _removed(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path` atomically."""
    write_bytes(path, content.encode())


def json_text(value: Any) -> str:
    """Return `value` as the text that `write_json` writes: of equal values of equal order it is the same."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in the given order, atomically."""
    write_text(path, json_text(value))


def json_kind(value: Any) -> str:
    """Say what kind of thing a plain value is, in words of no programming language: `a list`, `text`, `a number`."""
    return _JSON_KINDS.get(type(value), "a number" if isinstance(value, int | float) else "something else")


def sync_tree(root: Path) -> None:
    """Sync every file and directory below `root` to the disk."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            sync_directory(path)
        elif path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_directory(root)


def share_tree(root: Path) -> None:
    """Let whoever may read the folder `root` read the files below it, and whoever may write to it write them.

    The umask decided that of the folder. Some libraries write by way of temporary files, which are their owner's alone:
    safetensors does, so that nobody else who works with these results could have read a weight.
    """
    shared = root.stat().st_mode & 0o666
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and shared & ~mode:
            with suppress(PermissionError):  # on a file system with rules of its own
                path.chmod(stat.S_IMODE(mode) | shared)


def remove_folder(path: Path, ignore_errors: bool = False) -> None:
    """Remove a folder and all in it; if it is a link only the link: what that leads to may be another's."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=ignore_errors)


def places(path: Path) -> tuple[Path, Path]:
    """Return the absolute path with links as they are, save those before a `..`, and with all links followed.

    What lies beside a folder, or above it, may do so at either place: results may be links to other disks.
    """
    parts = path.absolute().parts
    steps = max((place + 1 for place, part in enumerate(parts) if part == ".."), default=1)
    return Path(*parts[:steps]).resolve().joinpath(*parts[steps:]), path.resolve()


def is_text(path: Path) -> bool:
    """Whether a name is UTF-8, as what libraries open and what records hold must be; others are surrogates here."""
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give an empty directory beside `target` that becomes `target`, whole, when the block ends without an error.

    What stood at `target` is moved aside first and removed last; after an error it stays as it was. Of several
    processes that do this at once, the last one's directory stays.

    Raises:
        CoolbitsError: if the directory was removed meanwhile.
    """
    staging = _staging(target)
    retired: list[Path] = []
    try:
        with _unremoved(staging):
            yield staging
            share_tree(staging)
            sync_tree(staging)
        while not _moved(staging, target):
            retired.append(beside(target, "old"))
            with suppress(FileNotFoundError):  # another process was faster
                target.replace(retired[-1])
        sync_directory(target.parent)
    finally:
        for left in (staging, *retired):
            remove_folder(left, ignore_errors=True)


@contextmanager
def creating(target: Path) -> Iterator[Path]:
    """Give an empty directory beside `target` that becomes `target`, whole, when the block ends without an error.

    Unlike `replacing`, it never touches what others put at `target` meanwhile, not even an empty folder: then the
    finished directory stays where it is. After an error in the block nothing is left.

    Raises:
        CoolbitsError: if something is at `target` by then, or nothing can be put there; it says where the finished
            directory lies. Or if that was removed meanwhile.
    """
    staging = _staging(target)
    try:
        with _unremoved(staging):
            yield staging
            share_tree(staging)
            sync_tree(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    try:
        # A rename replaces an empty folder in silence: it has to be our own, which `mkdir` alone can tell.
        target.mkdir()
        staging.replace(target)
    except OSError as error:
        taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
        reason = "something else was put there meanwhile, and is left alone" if taken else error.strerror
        raise CoolbitsError(f"{target}: {reason}; what was made is whole and lies in {staging}") from None
    sync_directory(target.parent)


def _staging(target: Path) -> Path:
    """Make an empty directory beside `target`, and what that lies in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = beside(target, "new")
    staging.mkdir()
    return staging


@contextmanager
def _unremoved(staging: Path) -> Iterator[None]:
    """Demand that a directory is the same one when the block ends.

    Libraries make a folder again that they miss: with a part of the files in it, which must not pass for the whole.
    """
    # As long as it is open here, its number can go to no other directory.
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        yield
        if not _is_open_as(staging, descriptor):
            raise _removed(staging)
    except Exception as error:
        if _is_open_as(staging, descriptor):
            raise
        raise _removed(staging) from error
    finally:
        os.close(descriptor)


def _is_open_as(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _removed(staging: Path) -> CoolbitsError:
    return CoolbitsError(f"{staging}: removed by somebody while a job wrote to it; what it made is lost: run again")


def beside(target: Path, what: str) -> Path:
    """Return a hidden name of its own beside `target`, for `what` is to become it, "new", or was it, "old"."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.{what}")


def _moved(staging: Path, target: Path) -> bool:
    """Move a directory to where none is yet, or say that one is."""
    try:
        staging.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not target.is_symlink():
            raise
        return False
    return True
