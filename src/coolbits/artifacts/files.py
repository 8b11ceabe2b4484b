"""Files that are either whole or absent: temporary name, sync, rename."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a reader sees the old file or the new one, never a part."""
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


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in the given order, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def sync_tree(root: Path) -> None:
    """Sync every file and directory below `root` to the disk."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            sync_directory(path)
        elif path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_directory(root)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give an empty directory beside `target` that becomes `target`, whole, when the block ends without an error.

    What stood at `target` is moved aside first and removed last; after an error it stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    staging = target.with_name(f".{target.name}.{mark}.new")
    retired = target.with_name(f".{target.name}.{mark}.old")
    staging.mkdir()
    try:
        yield staging
        sync_tree(staging)
        if target.exists():
            target.replace(retired)
        staging.replace(target)
        sync_directory(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
