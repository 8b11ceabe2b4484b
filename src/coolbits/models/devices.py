"""Which device a stage computes on."""

import torch


def choose_device(name: str) -> str:
    """Return "cpu" or "cuda" for one of those, or for "auto": cuda if there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name
