"""Read an exported model back from its files, with a reader that shares no code with the writer."""

from collections.abc import Collection, Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from coolbits.models.layers import IntegerLayer, Parts
from coolbits.ptq.export.formats import Format


def verify(out: Path, layers: Mapping[str, IntegerLayer], rest: Parts, form: Format, config: Mapping[str, Any]) -> None:
    """See that each weight in the files is the one that the codes of its layer stand for, and all else is `rest`.

    Raises:
        RuntimeError: naming the tensor that is not: a defect of this package, or of a library that saved the file.
    """
    stored = _files(out)
    owners = {key.rpartition(".")[0] for key in stored}
    other = [(path, key) for key, path in stored.items() if key not in rest and not _of(key, layers)]
    unknown = {key.rpartition(".")[0] for _, key in other}
    for name, layer in layers.items():
        own = {_stored_name(name, owners, unknown)}
        parts = {key.rpartition(".")[2]: _read(path, key) for key, path in stored.items() if _of(key, own)}
        expected = replace(layer, scales=layer.scales.float()).weight()
        if not parts or not torch.equal(form.weight(parts, config), expected):
            raise RuntimeError(f"{out}: {name} reads back as other weights than its codes stand for")
    written = {tensor.data_ptr() for key, tensor in rest.items() if key in stored}
    for key, tensor in rest.items():
        owner, _, part = key.rpartition(".")
        name = f"{_stored_name(owner, owners, unknown)}.{part}"
        # A tied weight is written once, under one of its names.
        places = [(stored[name], name)] if name in stored else other
        found = any(torch.equal(_read(*place), tensor) for place in places)
        if not found and (key in stored or tensor.data_ptr() not in written):
            raise RuntimeError(f"{out}: {key} reads back as another tensor, or not at all")


def _files(out: Path) -> dict[str, Path]:
    """Return the file of each tensor."""
    files: dict[str, Path] = {}
    for path in sorted(out.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            files |= dict.fromkeys(tensors.keys(), path)
    return files


def _stored_name(module: str, owners: Collection[str], unknown: Collection[str]) -> str:
    """Return the name of a module in the files, which may be older than in the model.

    `owners` are those of the files' tensors, `unknown` those that the model has no such name for. Where its body has
    another name there, as Nemotron-H's, what is inside has the same; a head, as GPT-NeoX's, is inside of nothing.
    """
    if module in owners:
        return module
    _, _, inside = module.partition(".")
    renamed = [owner for owner in unknown if owner.partition(".")[2] == inside]
    return renamed[0] if len(renamed) == 1 else module


def _of(key: str, modules: Container[str]) -> bool:
    """Whether the tensor `key` is part of the weight of one of `modules`."""
    owner, _, part = key.rpartition(".")
    return owner in modules and part != "bias"


def _read(path: Path, key: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as tensors:
        tensor: torch.Tensor = tensors.get_tensor(key)
    return tensor
