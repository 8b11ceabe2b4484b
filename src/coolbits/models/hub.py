"""Pretrained models of the Hugging Face hub."""

import re
from pathlib import Path

from huggingface_hub import errors, snapshot_download

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.tokenizer_files import TEMPLATES, TOKENIZER_FILES

_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
# The same weights in other formats: in folders, and, of Mistral's models, in a file as large as all others together.
_OTHER_FORMATS = ["*/*.safetensors", "*/*.json", "*/*.py", "consolidated*.safetensors"]
_COMMIT = re.compile("[0-9a-f]{40}")


def as_commit(name: str | None) -> str | None:
    """Return a name if it is that of a commit, in full; else None."""
    return name if name and _COMMIT.fullmatch(name) else None


def commit_of(snapshot: Path) -> str | None:
    """Return the commit that a downloaded directory holds the files of, as the cache names it; None if unknown.

    A snapshot is of one commit, to which its revision was resolved once, by the hub or, out of its reach, by the cache.
    """
    return as_commit(snapshot.name)


def download_model(model_id: str, revision: str, tokenizer: bool = False, code: bool = False) -> Path:
    """Return the local directory of a model's config and safetensors, downloaded if they are not cached.

    `tokenizer`: the tokenizer's files, too; `code`: Python files, which nothing here runs.

    Raises:
        CoolbitsError: if the hub is out of reach, has no such repository or revision, or wants a login.
    """
    files = [*_FILES, *((*TOKENIZER_FILES, TEMPLATES) if tokenizer else ()), *(["*.py"] if code else ())]
    try:
        return Path(
            snapshot_download(model_id, revision=revision, allow_patterns=files, ignore_patterns=_OTHER_FORMATS)
        )
    except errors.GatedRepoError as error:
        raise CoolbitsError(f"model {model_id}: accept its licence on the hub, and log in") from error
    except errors.RevisionNotFoundError as error:
        raise CoolbitsError(f"model {model_id}: there is no revision `{revision}`") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CoolbitsError(f"model {model_id}: there is no such repository, or it needs a login") from error
    except (errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise CoolbitsError(
            f"model {model_id}: the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and no "
            "copy is cached"
        ) from error
