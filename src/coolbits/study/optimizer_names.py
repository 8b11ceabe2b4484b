"""Optimizers by the names of paper B: AdamW-32, AdamW-8D, Muon-8L, SGDM-8L, Muon-8L+AdamW-8D."""

import re
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.training import SGD, Muon, Optimizer, Storage

_NAMES = {"adamw": "AdamW", "adamc": "AdamC", "sgd": "SGDM", "muon": "Muon"}
_KINDS = {name: kind for kind, name in _NAMES.items()}
_CODECS = {"32": "float32", "8L": "linear", "8D": "dynamic"}
_LETTERS = {codec: letters for letters, codec in _CODECS.items()}
_BLOCK, _SMALLEST = Storage().block_size, Storage().smallest
_STATES = r"(32|8L|8D)(?:-b([1-9]\d*))?(?:-min(0|[1-9]\d*))?"
_PATTERN = re.compile(rf"(AdamW|AdamC|SGDM|Muon)-{_STATES}(?:\+AdamW-{_STATES})?")


def optimizer_preset(name: str) -> dict[str, Any]:
    """Return the keys of the optimizer that `name` stands for, all others left to their defaults.

    `8L` is linear and `8D` dynamic, in blocks of 2,048 or as `-b256` says, for tensors with 4,096 elements and more
    or as `-min0` says; of Muon it is the momentum, and `+AdamW-8D` stores the moments of the AdamW beside it, which are
    float32 otherwise.

    Raises:
        CoolbitsError: if `name` is no such name.
    """
    match = _PATTERN.fullmatch(name)
    if match is None or (match[5] and match[1] != "Muon"):
        raise CoolbitsError(
            f"optimizer: no {name!r}; allowed are AdamW, AdamC, SGDM or Muon with -32, -8L or -8D, with "
            "-b256 behind it for blocks other than 2,048, -min0 behind that for a smallest tensor other than 4,096, "
            "and Muon with an AdamW beside it: Muon-8L+AdamW-8D"
        )
    kind, own = _KINDS[match[1]], _storage(*match.group(2, 3, 4))
    beside = _storage(*match.group(5, 6, 7))
    match kind:
        case "muon":
            states = {"momentum": own, "exp_avg": beside, "exp_avg_sq": beside}
        case "sgd":
            states = {"momentum": own}
        case _:
            states = {"exp_avg": own, "exp_avg_sq": own}
    return {"kind": kind, "states": states}


def _storage(letters: str | None, block: str | None, smallest: str | None) -> dict[str, Any]:
    return {
        "codec": _CODECS[letters or "32"],
        "block_size": int(block) if block else _BLOCK,
        "smallest": int(smallest) if smallest else _SMALLEST,
    }


def states_label(optimizer: Optimizer) -> str:
    """Return how the states are stored: `32`, `8L`, `8D-b256-min0`, for Muon `8L+8D` with an AdamW that is not 32-bit.

    Two moments stored differently are both named, first moment first: `8L/8D`.
    """
    match optimizer:
        case Muon(states=states):
            beside = _pair(states.exp_avg, states.exp_avg_sq)
            return _letters(states.momentum) + (f"+{beside}" if beside != "32" else "")
        case SGD(states=states):
            return _letters(states.momentum)
        case _:
            return _pair(optimizer.states.exp_avg, optimizer.states.exp_avg_sq)


def optimizer_name(optimizer: Optimizer) -> str:
    """Return the name of an optimizer, which `optimizer_preset` understands if both moments are stored alike."""
    return display_name(optimizer.kind, states_label(optimizer))


def display_name(kind: str, states: str) -> str:
    """Return the name from the two columns of a table: `muon` and `8L+8D` give `Muon-8L+AdamW-8D`."""
    return f"{_NAMES.get(kind, kind)}-{states.replace('+', '+AdamW-')}"


def _pair(first: Storage, second: Storage) -> str:
    one, other = _letters(first), _letters(second)
    return one if one == other else f"{one}/{other}"


def _letters(storage: Storage) -> str:
    if storage.codec == "float32":
        return _LETTERS[storage.codec]
    block = "" if storage.block_size == _BLOCK else f"-b{storage.block_size}"
    smallest = "" if storage.smallest == _SMALLEST else f"-min{storage.smallest}"
    return _LETTERS[storage.codec] + block + smallest
