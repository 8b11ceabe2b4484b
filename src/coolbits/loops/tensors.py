"""Tensors of a saved training, read back as they were written: nothing is cast."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.files import load_model

WEIGHTS = "model.safetensors"
_REMEDY = "delete its directory to train again"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors.

    Raises:
        CoolbitsError: if it is missing or unreadable.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise CoolbitsError(f"{path}: no such file; {_REMEDY}") from None
    except (OSError, SafetensorError) as error:
        raise CoolbitsError(f"{path}: not readable as safetensors ({error}); {_REMEDY}") from None
    return tensors


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Read the weights of a model that was saved in training.

    Raises:
        CoolbitsError: if they are missing or unreadable, or one is in another floating dtype than float32.
    """
    weights = read_tensors(directory / WEIGHTS)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise CoolbitsError(
                f"{directory / WEIGHTS}: {name} is {tensor.dtype}, but training keeps weights in torch.float32"
            )
    return weights


def restore_model(model: PreTrainedModel, directory: Path) -> None:
    """Put the weights in the Hugging Face directory `directory` into `model`.

    Raises:
        CoolbitsError: as `read_weights` and `load_model`, or if a shape is not the model's.
    """
    read_weights(directory)
    # The library knows by which names a model's weights are written, and which of them are tied.
    saved = load_model(directory)
    with torch.no_grad():
        for (name, parameter), given in zip(model.named_parameters(), saved.parameters(), strict=True):
            if given.shape != parameter.shape:
                shapes = f"{list(given.shape)}, but {list(parameter.shape)}"
                raise CoolbitsError(f"{directory / WEIGHTS}: {name} has the shape {shapes} in the model in training")
            parameter.copy_(given)
