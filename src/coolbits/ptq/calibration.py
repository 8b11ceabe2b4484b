"""Calibration: which tokens the model sees, and the Hessians that its layers gather from them."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.hessian import HessianSum
from coolbits.ptq.tracing import Block, Hook, Stop, full_precision, hooked
from coolbits.study.recipes.ptq import Calibration


def calibration_tokens(stream: TokenStream, recipe: Calibration) -> torch.Tensor:
    """Draw sequences from the training tokens, without repetition, by seed: int64 [sequences, sequence_length].

    Raises:
        CoolbitsError: if the stream has too few.
    """
    length, wanted = recipe.sequence_length, recipe.sequences
    windows = stream.tokens // length
    if windows < wanted:
        raise CoolbitsError(
            f"calibration.sequences: {wanted} sequences of {length} tokens are wanted, the training split has {windows}"
        )
    starts = (window * length for window in random.Random(recipe.seed).sample(range(windows), wanted))
    return torch.from_numpy(np.stack([stream.read(start, start + length) for start in starts]).astype(np.int64))


def check_calibration(recipe: Calibration, linears: Mapping[str, nn.Module]) -> None:
    """Refuse a calibration of fewer tokens than a layer has inputs: its Hessian could not have full rank.

    Raises:
        CoolbitsError: naming the widest layer.
    """
    name, module = max(linears.items(), key=lambda item: weight_matrix(item[1]).shape[1])
    inputs, sequences, length = weight_matrix(module).shape[1], recipe.sequences, recipe.sequence_length
    if sequences * length < inputs:
        raise CoolbitsError(
            f"calibration.sequences: {sequences} sequences of {length} tokens are fewer than the {inputs} inputs of "
            f"{name}; take at least {-(-inputs // length)} sequences"
        )


@torch.inference_mode()
def gather_hessians(
    block: Block, inputs: Sequence[torch.Tensor], modules: Mapping[str, nn.Module]
) -> tuple[dict[str, torch.Tensor], tuple[torch.Tensor, ...]]:
    """Run a block over its inputs once; return the Hessian of each of `modules` (float64) and the block's outputs.

    Sums are kept in float64 on the CPU and in float32 elsewhere.
    """
    device = inputs[0].device
    sums = {name: _sum_for(module, device) for name, module in modules.items()}
    with full_precision(device), hooked({module: _adding(sums[name]) for name, module in modules.items()}):
        outputs = tuple(block.forward(hidden) for hidden in inputs)
    return {name: total.hessian() for name, total in sums.items()}, outputs


@torch.inference_mode()
def gather_hessian(block: Block, inputs: Sequence[torch.Tensor], module: nn.Module) -> torch.Tensor:
    """Return the Hessian (float64) of one module of a block, running the block no further than to that module."""
    device = inputs[0].device
    total = _sum_for(module, device)
    for hidden in inputs:
        with full_precision(device), hooked({module: _adding(total, stop=True)}):
            block.forward(hidden)
    return total.hessian()


def _sum_for(module: nn.Module, device: torch.device) -> HessianSum:
    dtype = torch.float64 if device.type == "cpu" else torch.float32
    return HessianSum(weight_matrix(module).shape[1], device, dtype)


def _adding(total: HessianSum, stop: bool = False) -> Hook:
    def hook(arguments: tuple[torch.Tensor, ...], _keywords: dict[str, Any]) -> None:
        total.add(arguments[0])
        if stop:
            raise Stop

    return hook
