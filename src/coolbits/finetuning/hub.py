"""Pretrained models of the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import errors, snapshot_download

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.finetuning import HubModel

_FILES = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"]
_FOLDERS = ["*/*"]  # the same weights in other formats


def download_model(model: HubModel) -> Path:
    """Return the local directory of a model's config and safetensors, downloaded if they are not cached.

    Raises:
        CoolbitsError: if the hub is out of reach, has no such repository or revision, or wants a login.
    """
    try:
        return Path(
            snapshot_download(model.id, revision=model.revision, allow_patterns=_FILES, ignore_patterns=_FOLDERS)
        )
    except errors.GatedRepoError as error:
        raise CoolbitsError(f"model {model.id}: accept its licence on the hub, and log in") from error
    except errors.RevisionNotFoundError as error:
        raise CoolbitsError(f"model {model.id}: there is no revision `{model.revision}`") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CoolbitsError(f"model {model.id}: there is no such repository, or it needs a login") from error
    except (errors.LocalEntryNotFoundError, ConnectionError) as error:
        raise CoolbitsError(
            f"model {model.id}: the Hugging Face hub cannot be reached (no network, or HF_HUB_OFFLINE is set) and no "
            "copy is cached"
        ) from error
