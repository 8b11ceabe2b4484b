"""What a model's layers see of the calibration: their Hessians."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.hessian import HessianSum
from coolbits.ptq.hooks import Hook, Stop, full_precision, hooked
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import Block, Chunk, real_rows


def check_calibration(calibration: Tokens, linears: Mapping[str, nn.Module], vocabulary_size: int) -> None:
    """Refuse a calibration of no more tokens than a layer has inputs: its Hessian could hardly have full rank.

    Raises:
        CoolbitsError: naming the widest layer; or if a token lies outside the model's vocabulary.
    """
    name, module = max(linears.items(), key=lambda item: weight_matrix(item[1]).shape[1])
    inputs, (sequences, length) = weight_matrix(module).shape[1], calibration.tokens.shape
    if calibration.count <= inputs:
        raise CoolbitsError(
            f"calibration.sequences: {sequences} sequences of up to {length} tokens, {calibration.count} in all, are "
            f"not more than the {inputs} inputs of {name}; take at least {inputs // length + 1} sequences"
        )
    if (highest := int(calibration.tokens.max())) >= vocabulary_size:
        raise CoolbitsError(
            f"calibration: the token {highest} lies outside the model's vocabulary of {vocabulary_size}; "
            f"the tokens are another tokenizer's"
        )


@torch.inference_mode()
def gather_hessians(
    block: Block, inputs: Sequence[Chunk], modules: Mapping[str, nn.Module], precision: torch.dtype = torch.float64
) -> tuple[dict[str, torch.Tensor], tuple[Chunk, ...]]:
    """Run a block over its inputs once; return the Hessian of each of `modules` and the block's outputs.

    Sums are kept in `precision` on the CPU and in float32 elsewhere.
    """
    device = block.device
    sums = {name: _sum_for(module, device, precision) for name, module in modules.items()}
    outputs = []
    for chunk in inputs:
        hooks = {module: _adding(sums[name], chunk.real) for name, module in modules.items()}
        with full_precision(device), hooked(hooks):
            outputs.append(block.run(chunk))
    return {name: total.hessian() for name, total in sums.items()}, tuple(outputs)


@torch.inference_mode()
def gather_hessians_alone(
    block: Block, inputs: Sequence[Chunk], modules: Mapping[str, nn.Module], precision: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    """Return what `gather_hessians` does but outputs: a block runs no further than to the last of `modules`."""
    device = block.device
    sums = {name: _sum_for(module, device, precision) for name, module in modules.items()}
    for chunk in inputs:
        waiting = set(modules)
        hooks = {module: _adding(sums[name], chunk.real, name, waiting) for name, module in modules.items()}
        with full_precision(device), hooked(hooks):
            block.run(chunk)
    return {name: total.hessian() for name, total in sums.items()}


def gather_hessian(
    block: Block, inputs: Sequence[Chunk], module: nn.Module, precision: torch.dtype = torch.float64
) -> torch.Tensor:
    """Return the Hessian of one module of a block, running the block no further than to that module."""
    return gather_hessians_alone(block, inputs, {"": module}, precision)[""]


@torch.inference_mode()
def run_quantizing(
    block: Block,
    chunk: Chunk,
    linears: Mapping[str, nn.Module],
    quantize: Callable[[Sequence[str], torch.Tensor], None],
    precision: torch.dtype = torch.float64,
) -> Chunk:
    """Run a block once, and as soon as a group of layers is reached, `quantize(group, Hessian)` it; return the output.

    With all of the calibration in one chunk this gives the bits of `gather_hessian` group by group, without running
    the block from its start for each.
    """
    waiting = list(block.groups)

    def reaching(group: tuple[str, ...]) -> Hook:
        def hook(arguments: tuple[torch.Tensor, ...], _keywords: dict[str, Any]) -> None:
            if group in waiting:
                waiting.remove(group)
                quantize(group, _hessian_of(arguments[0], chunk.real, linears[group[0]], precision))

        return hook

    hooks = {linears[name]: reaching(group) for group in block.groups for name in group}
    with full_precision(block.device), hooked(hooks):
        output = block.run(chunk)
    for group in waiting:  # the forward pass never came to these
        quantize(group, _sum_for(linears[group[0]], block.device, precision).hessian())
    return output


def _sum_for(module: nn.Module, device: torch.device, precision: torch.dtype) -> HessianSum:
    return HessianSum(weight_matrix(module).shape[1], device, precision)


def _hessian_of(
    vectors: torch.Tensor, real: torch.Tensor | None, module: nn.Module, precision: torch.dtype
) -> torch.Tensor:
    """Return the Hessian of a module that reads these vectors and no others; the sum it is made from is gone then."""
    total = _sum_for(module, vectors.device, precision)
    total.add(real_rows(vectors, real))
    return total.hessian()


def _adding(total: HessianSum, real: torch.Tensor | None, name: str = "", waiting: set[str] | None = None) -> Hook:
    """Return a hook that adds to `total`; it stops the forward pass once it has taken the last name off `waiting`."""

    def hook(arguments: tuple[torch.Tensor, ...], _keywords: dict[str, Any]) -> None:
        total.add(real_rows(arguments[0], real))
        if waiting is not None:
            waiting.discard(name)
            if not waiting:
                raise Stop

    return hook
