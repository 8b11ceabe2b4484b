"""Sources: the documents of a recipe, one at a time, wherever they lie."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.progress import Progress
from coolbits.data.formats import read_rows, text_of
from coolbits.data.hub import open_dataset
from coolbits.study.recipes.data import EmbeddedSource, FileSource, Source

EMBEDDED = Path(__file__).with_name("english.jsonl.xz")


class Document(NamedTuple):
    """One document: the name of what it comes from, its text, and how far into the source it reaches."""

    source: str
    text: str
    reached: int


class _Reaching(Protocol):
    @property
    def reached(self) -> int: ...


_Item = TypeVar("_Item", bound=_Reaching)


@dataclass(frozen=True)
class Contents(Generic[_Item]):
    """What a source holds, one by one; `total` (0 if unknown) is the `reached` of the last, counted in `unit`.

    `origin`, for the summary of what is made of it: of the hub, the `commit` that is read, None if unknown.
    """

    items: Iterator[_Item]
    total: int
    unit: str
    origin: dict[str, str | None] = field(default_factory=dict)

    def followed(self, label: str) -> Iterator[_Item]:
        """Yield the items and report progress."""
        told = 0
        with Progress(label, self.total, self.unit) as progress:
            for item in self.items:
                yield item
                # A source of unknown length cannot say how much is left.
                if self.total:
                    progress.advance(item.reached - told)
                told = item.reached


def document_identity(text: bytes) -> bytes:
    """Return the BLAKE2b-128 of a document's text: equal documents are one, wherever they come from."""
    return blake2b(text, digest_size=16).digest()


def open_documents(source: Source, locations: list[Path]) -> Contents[Document]:
    """Open a source; `locations` are the paths of a `FileSource`, in the order of its names.

    Raises:
        CoolbitsError: if a file is missing or is not the one that the recipe names by digest, or the hub refuses;
            while iterating: for a row that cannot be read.
    """
    if isinstance(source, EmbeddedSource):
        check_digest(EMBEDDED, source.sha256)
        return Contents(_embedded(), EMBEDDED.stat().st_size, "bytes")
    if isinstance(source, FileSource):
        if len(locations) != len(source.names):
            raise CoolbitsError(f"locations.files: {len(locations)} paths for the {len(source.names)} source files")
        for path, digest in zip(locations, source.sha256, strict=True):
            check_digest(path, digest)
        return Contents(_files(source, locations), sum(path.stat().st_size for path in locations), "bytes")
    opened = open_dataset(source)
    items = (Document(source.id, text_of(row, source.text_field), row.reached) for row in opened.rows)
    return Contents(items, opened.total, "documents", {"commit": opened.commit})


def check_digest(path: Path, expected: str) -> None:
    """Check that a file is the one that a recipe names.

    Raises:
        CoolbitsError: if it is missing or has another digest.
    """
    if not path.is_file():
        raise CoolbitsError(f"{path}: no such file")
    found = file_digest(path)
    if found != expected:
        raise CoolbitsError(f"{path}: its SHA-256 is {found}, but the recipe's `sha256` is {expected}")


def _embedded() -> Iterator[Document]:
    for row in read_rows(EMBEDDED, EMBEDDED.name, "text"):
        yield Document(text_of(row, "source"), text_of(row, "text"), row.reached)


def _files(source: FileSource, locations: list[Path]) -> Iterator[Document]:
    before = 0
    for name, path in zip(source.names, locations, strict=True):
        for row in read_rows(path, name, source.text_field):
            yield Document(name, text_of(row, source.text_field), before + row.reached)
        before += path.stat().st_size
