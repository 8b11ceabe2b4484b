"""Where a model's tensors are while it is quantized: on the CPU as its files have them, save for the block at work."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from coolbits.models.forwards import fast_linears


@contextmanager
def placed(modules: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Hold the tensors of `modules` (not those of their children) on `device`, real numbers in float32.

    Linear layers among them make their products the fast way meanwhile.
    In the end the modules get their own tensors back, the very objects: nothing is rounded or copied back. What is in
    its place already is not copied at all.
    """
    held = list(modules)
    holders: list[dict[str, Any]] = [part for module in held for part in (module._parameters, module._buffers)]
    own = [(holder, dict(holder)) for holder in holders]
    try:
        for holder, tensors in own:
            holder.update({name: _moved(tensor, device) for name, tensor in tensors.items() if tensor is not None})
        with fast_linears(held):
            yield
    finally:
        for holder, tensors in own:
            holder.update(tensors)


@contextmanager
def placed_in_turn(blocks: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Place each of `blocks`, whole, for as long as it runs."""
    turn = ExitStack()

    def enter(block: nn.Module, _inputs: Any) -> None:
        turn.enter_context(placed(block.modules(), device))

    def leave(_block: nn.Module, _inputs: Any, _output: Any) -> None:
        turn.close()

    handles = [
        handle
        for block in blocks
        for handle in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
    ]
    try:
        yield
    finally:
        turn.close()
        for handle in handles:
            handle.remove()


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on `device`, in float32 if it holds real numbers; it travels in its own dtype."""
    there = tensor.detach().to(device)
    there = there.to(torch.float32) if there.is_floating_point() else there
    if there.dtype == tensor.dtype and there.device == tensor.device:
        return tensor
    return nn.Parameter(there, requires_grad=False) if isinstance(tensor, nn.Parameter) else there
