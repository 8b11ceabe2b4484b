"""Optimizer states of checkpoints, as float32 tensors."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from coolbits.analysis.rows import Origin
from coolbits.models.files import reading
from coolbits.optim.codecs import NEVER_NEGATIVE, Blockwise
from coolbits.study.recipes.analysis import Source
from coolbits.study.recipes.training import Checkpoint, Storage

_STATES = "state.safetensors"
_PARTS = ("codes", "scales")
_Keys = dict[str, dict[str, str]]  # by state and part


@dataclass(frozen=True)
class Stored:
    """The states that an optimizer keeps for one matrix, decoded, by name; `rounded` if it keeps them in 8 bits."""

    origin: Origin
    states: dict[str, Tensor]
    rounded: bool


def checkpoint_states(directory: Path, checkpoint: Checkpoint, source: Source, count: int) -> Iterator[Stored]:
    """Yield the states of `count` matrices of a checkpoint for each rule that updates matrices there.

    They are spread evenly over those large enough for 8-bit codes: of Muon, over the matrices with a momentum, and
    again over the tables that AdamW updates beside it.
    """
    storages = checkpoint.trajectory.optimizer.states
    path = directory / _STATES
    with reading(path, "the states of an optimizer"):
        opened = safe_open(path, framework="pt")
    with opened as file:
        rules: dict[tuple[str, ...], list[str]] = {}
        keys = _keys(file.keys())
        for name, states in keys.items():
            first = next(iter(states.values()))
            shape = file.get_slice(next(iter(first.values()))).get_shape()
            smallest = max(getattr(storages, state).smallest for state in states)
            if len(shape) == 2 and math.prod(shape) >= smallest:
                rules.setdefault(tuple(states), []).append(name)
        for name in (name for names in rules.values() for name in _spread(names, count)):
            parts = {
                state: {part: file.get_tensor(key) for part, key in own.items()} for state, own in keys[name].items()
            }
            decoded = {state: decode(own, state, getattr(storages, state)) for state, own in parts.items()}
            origin = Origin(
                source=source.run,
                seed=checkpoint.trajectory.seed,
                step=checkpoint.step,
                trajectory=source.trajectory,
                optimizer=source.optimizer,
                tensor=name,
            )
            yield Stored(origin, decoded, rounded=any("codes" in own for own in parts.values()))


def decode(parts: Mapping[str, Tensor], state: str, storage: Storage) -> Tensor:
    """Return a state from its parts, float32: from the one named "", or from codes and scales."""
    if "" in parts:
        return parts[""]
    if storage.codec == "float32":
        raise ValueError(f"{state} has codes, but its recipe says that it is stored as float32")
    return Blockwise(storage.codec, state not in NEVER_NEGATIVE, storage.block_size).decode(parts)


def _keys(keys: Iterable[str]) -> dict[str, _Keys]:
    """Return the keys of a state file by parameter, state and part."""
    found: dict[str, _Keys] = {}
    for key in sorted(keys):
        stem, _, last = key.rpartition(".")
        whole, part = (stem.rpartition(".")[0], last) if last in _PARTS else (key, "")  # `stem` ends with the kind
        parameter, _, state = whole.rpartition(".")
        if parameter:  # the optimizer's count of steps belongs to none
            found.setdefault(parameter, {}).setdefault(state, {})[part] = key
    return found


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Return `count` of the names, first and last among them, or all if there are fewer."""
    if len(names) <= count:
        return list(names)
    return [names[round(place * (len(names) - 1) / max(1, count - 1))] for place in range(count)]
