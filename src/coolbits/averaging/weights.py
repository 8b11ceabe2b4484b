"""Weighted means of checkpoints' tensors, one tensor at a time.

Every average here is linear in its members: a soup and a LAWA window (Kaddour 2022, arXiv 2209.14981) weigh them
equally, an EMA by powers of its decay. So one weighted sum serves all, with the shares of `Average.shares`.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import json_kind
from coolbits.artifacts.hashing import file_digest
from coolbits.models.files import reading

CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
# What the library notes about the file, not about the model.
_NOTES = ("transformers_version", "_name_or_path")


def average_weights(members: Sequence[Path], shares: Sequence[float], out: Path) -> None:
    """Write `model.safetensors` into `out`: the sum of the members' tensors, each times its share.

    Sums are taken in float64 and rounded once, to the members' dtype; equal members give back their own bits, unless
    they are float64. Tensors of integers must be equal in all. Memory holds one average and one tensor of a member.

    Raises:
        CoolbitsError: if a file cannot be read, members differ in the names, shapes or dtypes of their tensors, or one
            is not finite.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(member / WEIGHTS)) for member in members]
        _check_names(members, [set(file.keys()) for file in files])
        averaged = {}
        for name in sorted(files[0].keys()):
            total = torch.zeros((), dtype=torch.float64)
            first = files[0].get_tensor(name)
            for member, file, share in zip(members, files, shares, strict=True):
                tensor = file.get_tensor(name)
                _check_tensor(member, name, tensor, members[0], first)
                total = total + tensor.to(torch.float64) * share
            averaged[name] = total.to(first.dtype) if first.is_floating_point() else first
        save_file(averaged, out / WEIGHTS, metadata=files[0].metadata())


def _opened(path: Path) -> Any:
    with reading(path):
        return safe_open(path, framework="pt")


def _check_names(members: Sequence[Path], names: Sequence[set[str]]) -> None:
    for member, own in zip(members, names, strict=True):
        if differing := sorted(own ^ names[0]):
            raise CoolbitsError(
                f"{member / WEIGHTS}: {differing[0]} is in this member or in {members[0]}, but not in both"
            )


def _check_tensor(member: Path, name: str, tensor: torch.Tensor, reference: Path, expected: torch.Tensor) -> None:
    kinds = [f"{each.dtype} {list(each.shape)}".removeprefix("torch.") for each in (tensor, expected)]
    if kinds[0] != kinds[1]:
        raise CoolbitsError(f"{member / WEIGHTS}: {name} is {kinds[0]}, but {kinds[1]} in {reference}")
    if not tensor.is_floating_point():
        if not torch.equal(tensor, expected):
            raise CoolbitsError(f"{member / WEIGHTS}: {name} holds integers that differ from those in {reference}")
    elif not torch.isfinite(tensor).all():
        raise CoolbitsError(f"{member / WEIGHTS}: {name} holds values that are not finite; they cannot be averaged")


def check_alike(members: Sequence[Path]) -> None:
    """Refuse to average models of different architectures or tokenizers.

    Raises:
        CoolbitsError: naming the member and the keys of `config.json` that differ, or its tokenizer.
    """
    configs = [_config(member) for member in members]
    tokenizers = [_digest(member / TOKENIZER) for member in members]
    for member, config, tokenizer in zip(members, configs, tokenizers, strict=True):
        keys = sorted(key for key in config.keys() | configs[0].keys() if config.get(key) != configs[0].get(key))
        if keys:
            found = ", ".join(f"{key} is {config.get(key)!r}, not {configs[0].get(key)!r}" for key in keys)
            raise CoolbitsError(f"{member / CONFIG}: another architecture than {members[0]}: {found}")
        if tokenizer != tokenizers[0]:
            raise CoolbitsError(f"{member / TOKENIZER}: another tokenizer than that of {members[0]}")


def _config(member: Path) -> dict[str, Any]:
    with reading(member / CONFIG):
        config = json.loads((member / CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise CoolbitsError(f"{member / CONFIG}: holds {json_kind(config)}; keys and values are expected")
        return {key: value for key, value in config.items() if key not in _NOTES}


def _digest(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None
