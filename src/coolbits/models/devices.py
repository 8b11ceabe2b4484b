"""Which device a stage computes on."""

import torch

from coolbits.artifacts.errors import CoolbitsError


def choose_device(name: str) -> str:
    """Return "cpu" or "cuda" for one of those, or for "auto": cuda if there is one.

    Raises:
        CoolbitsError: if there is no CUDA device, and nothing else will do.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise CoolbitsError("execution.device: cuda is asked for, but there is no CUDA device here; take cpu or auto")
    return name
