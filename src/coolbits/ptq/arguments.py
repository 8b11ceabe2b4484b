"""What decoder blocks get besides hidden states, chunk by chunk of the calibration: masks, positions, embeddings."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from coolbits.models.forwards import standing_in
from coolbits.ptq.hooks import hidden_of

Taken = tuple[tuple[Any, ...], dict[str, Any]]  # arguments and keywords


def watch_arguments(
    body: nn.Module, chunk: torch.Tensor, others: Mapping[nn.Module, tuple[Any, ...] | None]
) -> dict[nn.Module, Taken]:
    """Return what each block gets besides the hidden states of a chunk, such as masks and positions.

    No block computes meanwhile: each gives back what it reads, and `others` behind it.
    """
    taken: dict[nn.Module, Taken] = {}

    def passing(block: nn.Module) -> Callable[..., Any]:
        def forward(*arguments: Any, **keywords: Any) -> Any:
            taken[block] = arguments[1:], {key: item for key, item in keywords.items() if key != "hidden_states"}
            return behind(hidden_of(arguments, keywords), others[block])

        return forward

    with standing_in({block: passing(block) for block in others}):
        body(input_ids=chunk, use_cache=False)
    return taken


def shared(taken: Mapping[nn.Module, Taken], first: Mapping[nn.Module, Taken]) -> dict[nn.Module, Taken]:
    """Return what blocks get of a chunk: the first chunk's tensors, or corners of them, where equal; else on the CPU.

    So a mask is kept once, also for chunks of shorter sequences, which get views, and what depends on tokens waits
    where the hidden states do.
    """
    return {
        block: (
            _equal_or_moved(arguments, first[block][0]),
            {key: _equal_or_moved(item, first[block][1].get(key)) for key, item in keywords.items()},
        )
        for block, (arguments, keywords) in taken.items()
    }


def _equal_or_moved(item: Any, first: Any) -> Any:
    if isinstance(item, torch.Tensor):
        corner = _corner(first, item.shape) if isinstance(first, torch.Tensor) else None
        return item.cpu() if corner is None or item.dtype != corner.dtype or not torch.equal(item, corner) else corner
    if type(item) is tuple and type(first) is tuple and len(item) == len(first):
        return tuple(map(_equal_or_moved, item, first))
    return item  # also a dictionary, through which the blocks of a chunk tell each other keys and values


def _corner(whole: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """Return the beginning of a tensor in each dimension, itself if that is all of it; None if there is too little."""
    if whole.shape == shape:
        return whole
    fits = whole.dim() == len(shape) and all(size <= own for size, own in zip(shape, whole.shape, strict=True))
    return whole[tuple(map(slice, shape))] if fits else None


def moved_to(item: Any, device: torch.device) -> Any:
    """Return a tensor, or a tuple with tensors in it, on `device`; anything else as it is."""
    if isinstance(item, torch.Tensor):
        return item.to(device)
    return tuple(moved_to(part, device) for part in item) if type(item) is tuple else item


def behind(hidden: torch.Tensor, others: tuple[Any, ...] | None) -> Any:
    """Return what a block gives: hidden states, alone or with what it gives besides them behind."""
    return hidden if others is None else (hidden, *others)


def others_of(output: Any) -> tuple[Any, ...] | None:
    """Return what a block gives besides hidden states; None if it gives a bare tensor."""
    return tuple(output[1:]) if isinstance(output, tuple | list) else None
