"""Watching a model run: hooks around its modules, forward passes that end early."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

Hook = Callable[..., None]


class Stop(Exception):  # noqa: N818
    """Ends a forward pass that has shown enough; it is no error."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast and reduced-precision matrix products off: Hessians gathered under them fail to factorize."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def hooked(modules: Mapping[nn.Module, Hook], *, after: bool = False) -> Iterator[None]:
    """Call `hook(arguments, keywords)` before each forward pass of its module; a hook may raise `Stop`.

    With `after` it is `hook(arguments, keywords, output)`, behind each pass.
    """
    handles = []
    for module, hook in modules.items():
        register = module.register_forward_hook if after else module.register_forward_pre_hook
        handles.append(register(lambda _module, *seen, hook=hook: hook(*seen), with_kwargs=True))
    try:
        with suppress(Stop):
            yield
    finally:
        for handle in handles:
            handle.remove()


def hidden_of(arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> torch.Tensor:
    """Return the hidden states that a block is called with."""
    hidden: torch.Tensor = arguments[0] if arguments else keywords["hidden_states"]
    return hidden


def first_of(output: Any) -> torch.Tensor:
    """Return what a module gives, or the first of several things: the hidden states."""
    return output[0] if isinstance(output, tuple | list) else output
