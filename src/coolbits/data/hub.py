"""The Hugging Face hub: streamed datasets and tokenizer files, with the reasons of a failure told apart."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.formats import Row
from coolbits.study.recipes.data import HubSource, HubTokenizer

_TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_NOT_TOKENIZERS = ["*.index.json", "*/*"]
_UNREACHABLE = "the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and no copy is cached"


def open_dataset(source: HubSource) -> tuple[int, Iterator[Row]]:
    """Open a dataset as a stream; return how many documents it will give (0 if unknown) and its rows.

    Raises:
        CoolbitsError: if the hub is out of reach, there is no such dataset, configuration, split or revision, or the
            stream breaks off.
    """
    # Two seconds of imports that only this source needs.
    import datasets

    files = {source.split: list(source.files)} if source.files else None
    try:
        dataset = datasets.load_dataset(
            source.id, source.config, split=source.split, revision=source.revision, data_files=files, streaming=True
        )
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise CoolbitsError(_why_no_dataset(source, error)) from error
    # The repository tells the documents of a whole split.
    splits = {} if source.files else dataset.info.splits or {}
    known = splits[source.split].num_examples if source.split in splits else None
    return min((number for number in (known, source.documents) if number), default=0), _rows(dataset, source)


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
