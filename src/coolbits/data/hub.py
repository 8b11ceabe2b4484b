"""The Hugging Face hub: streamed datasets and tokenizer files, with the reasons of a failure told apart."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.formats import Row, unpack_zstd
from coolbits.models.hub import as_commit
from coolbits.study.recipes.data import HubSource, HubTokenizer

_TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_NOT_TOKENIZERS = ["*.index.json", "*/*"]
_UNREACHABLE = "the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and no copy is cached"


class Opened(NamedTuple):
    """A dataset as a stream: how many documents it will give (0 if unknown), its rows, and the commit that they are of.

    The commit is None if unknown, as of a folder that is read like a dataset.
    """

    total: int
    rows: Iterator[Row]
    commit: str | None


def open_dataset(source: HubSource) -> Opened:
    """Open a dataset as a stream, all of it of the one commit that its revision names now.

    Raises:
        CoolbitsError: if the hub is out of reach, there is no such dataset, configuration, split or revision, what the
            cache has is of another commit than the one asked for, or the stream breaks off.
    """
    # Two seconds of imports that only this source needs.
    import datasets
    from fsspec.compression import compr, register_compression  # type: ignore[import-untyped]

    if "zstd" not in compr:  # else only the package zstandard teaches it
        register_compression("zstd", lambda packed, **_: unpack_zstd(packed), "zst")
    files = {source.split: list(source.files)} if source.files else None
    try:
        builder = datasets.load_dataset_builder(source.id, source.config, revision=source.revision, data_files=files)
        dataset = builder.as_streaming_dataset(source.split)
    # Its card and its files are read here, each by a library with exceptions of its own.
    except Exception as error:
        raise CoolbitsError(_why_no_dataset(source, error)) from error
    # The library resolves a revision once, reads all files at that commit, and calls the builder's hash after it.
    commit = as_commit(builder.hash)
    # Out of the hub's reach it takes what it prepared last, of whatever revision.
    if commit and as_commit(source.revision) not in (None, commit):
        raise CoolbitsError(f"dataset {source.id}: {_UNREACHABLE} of {source.revision}, only of {commit}")
    # The repository tells the documents of a whole split.
    splits = {} if source.files else dataset.info.splits or {}
    known = splits[source.split].num_examples if source.split in splits else None
    total = min((number for number in (known, source.documents) if number), default=0)
    return Opened(total, _rows(dataset, source), commit)


def _why_no_dataset(source: HubSource, error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, ConnectionError):
        return f"dataset {source.id}: {_UNREACHABLE}"
    if said.startswith("Revision"):
        return f"dataset {source.id}: there is no revision `{source.revision}`"
    if said.startswith(("BuilderConfig", "Config name")):
        return f"dataset {source.id}: there is no configuration `{source.config}` ({said})"
    if "split" in said:
        return f"dataset {source.id}: there is no split `{source.split}` ({said})"
    if source.files and said.startswith("Unable to find"):
        return f"dataset {source.id}: there are not all of the files {', '.join(source.files)} ({said})"
    if isinstance(error, FileNotFoundError):
        return f"dataset {source.id}: there is no such dataset, or it needs a login ({said})"
    return f"dataset {source.id}: cannot be opened ({said})"


def _rows(dataset: Any, source: HubSource) -> Iterator[Row]:
    number = 0
    try:
        for number, fields in enumerate(islice(dataset, source.documents), start=1):
            yield Row(f"dataset {source.id}, row {number}", fields, number)
    # Any library below may fail here (HTTP, parquet, JSON, a proxy), each with exceptions of its own.
    except Exception as error:
        raise CoolbitsError(f"dataset {source.id}: the stream broke off after row {number} ({error!r})") from error


def download_tokenizer(recipe: HubTokenizer) -> Path:
    """Return the local directory of a hub tokenizer's files, downloaded if they are not cached.

    Raises:
        CoolbitsError: if the hub is out of reach or has no such repository or revision.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                recipe.id,
                revision=recipe.revision,
                allow_patterns=_TOKENIZER_FILES,
                ignore_patterns=_NOT_TOKENIZERS,
            )
        )
    except errors.RevisionNotFoundError as error:
        raise CoolbitsError(f"tokenizer {recipe.id}: there is no revision `{recipe.revision}`") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CoolbitsError(f"tokenizer {recipe.id}: there is no such repository, or it needs a login") from error
    except (errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise CoolbitsError(f"tokenizer {recipe.id}: {_UNREACHABLE}") from error
