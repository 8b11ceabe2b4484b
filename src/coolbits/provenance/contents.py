"""Contents: whether the bytes on disk are those that manifests name, and no others lie beside them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.manifest import BESIDE, MANIFEST, RECORD
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import ACCEPTED
from coolbits.provenance.findings import Finding
from coolbits.provenance.lineage import Artifact

SMALL_BYTES = 1 << 16
_UNSTATED = {MANIFEST, RECORD, ACCEPTED}
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class _File:
    label: str
    path: Path
    sha256: str
    bytes: int | None  # None: the record states no size


def check_contents(artifacts: Iterable[Artifact], quick: bool = False) -> Iterator[Finding]:
    """Yield each file that is missing, changed or not declared, as it is found.

    Sizes are compared first. Then files are hashed, several at once; with `quick` only those of at most `SMALL_BYTES`.
    """
    whole: list[_File] = []
    for artifact in artifacts:
        yield from _undeclared(artifact)
        for file in _declared(artifact):
            finding = _by_size(file)
            if finding:
                yield finding
            elif not quick or (file.bytes is not None and file.bytes <= SMALL_BYTES):
                whole.append(file)
    yield from _by_digest(whole)


def _declared(artifact: Artifact) -> Iterator[_File]:
    stated = artifact.manifest.files if artifact.manifest else {}
    for name, entry in stated.items():
        yield _File(f"{artifact.label}/{name}", artifact.directory / name, entry["sha256"], entry["bytes"])
    for name, digest in (artifact.record.beside if artifact.record else {}).items():
        yield _File(f"{artifact.label}/{name}", artifact.directory / name, digest, None)


def _undeclared(artifact: Artifact) -> Iterator[Finding]:
    if artifact.manifest is None:
        return
    beside = artifact.record.beside if artifact.record else BESIDE
    known = {artifact.directory / name for name in (*artifact.manifest.files, *beside, *_UNSTATED)}
    for path in sorted(set(artifact.directory.rglob("*")) - known):
        if path.is_symlink() or not path.is_dir():
            place = f"{artifact.label}/{path.relative_to(artifact.directory).as_posix()}"
            yield Finding("undeclared", (place,), "no manifest declares this file")


def _by_size(file: _File) -> Finding | None:
    try:
        found = file.path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return Finding("missing", (file.label,), "no such file, but it was recorded")
    except OSError as error:
        return _unreadable(file, error)
    if file.bytes is not None and found != file.bytes:
        return Finding("changed", (file.label,), f"{found:,} bytes; the manifest says {file.bytes:,}")
    return None


def _by_digest(files: list[_File]) -> Iterator[Finding]:
    total = sum(file.bytes or 0 for file in files)
    done = 0
    with ThreadPoolExecutor(cpu_count()) as pool, Progress("hashing", total // _MEGABYTE, "MB") as progress:
        for file, finding in zip(files, pool.map(_hashed, files), strict=True):
            if finding:
                yield finding
            before, done = done, done + (file.bytes or 0)
            progress.advance(done // _MEGABYTE - before // _MEGABYTE)


def _hashed(file: _File) -> Finding | None:
    try:
        same = file_digest(file.path) == file.sha256
    except OSError as error:
        return _unreadable(file, error)
    return None if same else Finding("changed", (file.label,), "its SHA-256 is not the one that was recorded")


def _unreadable(file: _File, error: OSError) -> Finding:
    return Finding("changed", (file.label,), f"not readable ({error.strerror})")
