"""Modules that compute in other ways than their own, for a while."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from coolbits.products import linear


@contextmanager
def standing_in(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let modules compute by other functions, their hooks as ever; one context may lie inside another."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, own in before.items():
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = own


def fast_linears(modules: Iterable[nn.Module]) -> AbstractContextManager[None]:
    """Let the linear layers among `modules` compute by `products.linear`."""
    return standing_in({module: partial(_forward, module) for module in modules if type(module) is nn.Linear})


@contextmanager
def in_short_chunks(block: nn.Module, most: int) -> Iterator[None]:
    """Let recurrent modules of a block, such as Mamba 2's, compute in chunks no longer than `most` tokens.

    The library pads each sequence to a chunk, and one of a single token to 256 by default.
    """
    chunked: dict[Any, Any] = {
        module: module.chunk_size for module in block.modules() if isinstance(getattr(module, "chunk_size", None), int)
    }
    try:
        for module, size in chunked.items():
            module.chunk_size = min(size, most)
        yield
    finally:
        for module, size in chunked.items():
            module.chunk_size = size


def _forward(layer: nn.Linear, inputs: Tensor) -> Tensor:
    return linear(inputs, layer.weight, layer.bias)
