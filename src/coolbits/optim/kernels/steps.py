"""Updates of whole lists of tensors, one launch each: tensors checked, tables made, codebooks at hand.

What `optim.steps.Steps` asks for, made by the kernels of `updates.py`.
"""

from functools import lru_cache

import torch
import triton.language as tl
from torch import Tensor

from coolbits.optim.adam import Adam
from coolbits.optim.codebook import dynamic_codebook
from coolbits.optim.codecs import Blockwise, Parts
from coolbits.optim.kernels.blocks import Book, State
from coolbits.optim.kernels.cells import cells
from coolbits.optim.kernels.launch import Shape, Table, require, table, tile_shape, tiles
from coolbits.optim.kernels.updates import (
    AdamNumbers,
    AdamTables,
    MomentumNumbers,
    MomentumTables,
    adam_kernel,
    momentum_kernel,
)
from coolbits.optim.sgd import SGD

_FLOAT32 = (torch.float32,)
_GRADIENTS = (torch.float32, torch.bfloat16)


def adam_step(
    weights: list[Tensor],
    gradients: list[Tensor],
    exp_avg: list[Parts],
    exp_avg_sq: list[Parts],
    codecs: tuple[Blockwise, Blockwise],
    rule: Adam,
    step: Tensor,
    lr: float,
) -> None:
    """Make one update of `rule` in place of the float32 weights, codes and scales; `step` is its number, from 1.

    The weights get the new moments as they are before they are encoded. Gradients are float32 or bfloat16.

    Raises:
        ValueError: if the codecs' block sizes differ, or a tensor does not fit (see `launch.require`).
    """
    first, second = codecs
    if first.block_size != second.block_size:
        raise ValueError(f"one launch has one block size, not {first.block_size} and {second.block_size}")
    sizes = tuple(weight.numel() for weight in weights)
    if not sum(sizes):
        return
    shape, device = tile_shape(first.block_size), weights[0].device
    tables = AdamTables(
        _table("weights", weights, _FLOAT32, sizes, device, shape),
        _table("gradients", gradients, _GRADIENTS, sizes, device, shape),
        _state("exp_avg", exp_avg, first, sizes, device, shape),
        _state("exp_avg_sq", exp_avg_sq, second, sizes, device, shape),
    )
    plan = tiles(sizes, shape, device)
    numbers = AdamNumbers(lr, 1 - lr * rule.decay(lr), rule.beta1, 1 - rule.beta1, rule.beta2, 1 - rule.beta2, rule.eps)
    # Minus the corrections 1 - beta ** step, in float64: at first they are small.
    corrections = torch.expm1(step.double() * _log_betas(rule.beta1, rule.beta2, step.device))
    with torch.cuda.device_of(weights[0]):
        adam_kernel[plan.owner.shape](
            tables, plan, corrections, numbers, *shape, num_warps=shape.warps, maxnreg=shape.registers
        )


def sgd_step(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Parts],
    codec: Blockwise,
    rule: SGD,
    lr: float,
) -> None:
    """Make one update of `rule` in place of the float32 weights, codes and scales. Gradients are float32 or bfloat16.

    Raises:
        ValueError: if a tensor does not fit (see `launch.require`).
    """
    numbers = MomentumNumbers(rule.momentum, lr, 1 - lr * rule.weight_decay)
    _momentum_launch("weights", weights, gradients, momenta, codec, numbers, nesterov=rule.nesterov, update=True)


def momentum_step(
    gradients: list[Tensor], momenta: list[Parts], codec: Blockwise, momentum: float, nesterov: bool
) -> list[Tensor]:
    """Update M <- momentum * M + G in place of codes and scales; return the directions, float32, of the same shapes.

    They are momentum * M + G with `nesterov`, else M, of the new M as it is before it is encoded.

    Raises:
        ValueError: if a tensor does not fit (see `launch.require`).
    """
    directions = [torch.empty_like(gradient, dtype=torch.float32) for gradient in gradients]
    numbers = MomentumNumbers(momentum, 0.0, 1.0)
    _momentum_launch("directions", directions, gradients, momenta, codec, numbers, nesterov=nesterov, update=False)
    return directions


def _momentum_launch(
    name: str,
    outputs: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Parts],
    codec: Blockwise,
    numbers: MomentumNumbers,
    *,
    nesterov: bool,
    update: bool,
) -> None:
    sizes = tuple(output.numel() for output in outputs)
    if not sum(sizes):
        return
    shape, device = tile_shape(codec.block_size), outputs[0].device
    tables = MomentumTables(
        _table(name, outputs, _FLOAT32, sizes, device, shape),
        _table("gradients", gradients, _GRADIENTS, sizes, device, shape),
        _state("momenta", momenta, codec, sizes, device, shape),
    )
    plan = tiles(sizes, shape, device)
    with torch.cuda.device_of(outputs[0]):
        momentum_kernel[plan.owner.shape](tables, plan, numbers, nesterov, update, *shape, num_warps=shape.warps)


def _table(
    name: str,
    tensors: list[Tensor],
    dtypes: tuple[torch.dtype, ...],
    sizes: tuple[int, ...],
    device: torch.device,
    shape: Shape,
) -> Table:
    require(name, tensors, dtypes, sizes, device)
    return table(tensors, shape)


def _state(
    name: str, parts: list[Parts], codec: Blockwise, sizes: tuple[int, ...], device: torch.device, shape: Shape
) -> State:
    codes, scales = ([part[key] for part in parts] for key in ("codes", "scales"))
    blocks = tuple(-(-size // codec.block_size) for size in sizes)
    return State(
        _table(f"codes of {name}", codes, (codec.dtype,), sizes, device, shape),
        _table(f"scales of {name}", scales, _FLOAT32, blocks, device, shape)._replace(aligned=tl.constexpr(False)),
        _book(codec.signed, device) if codec.kind == "dynamic" else None,
        tl.constexpr(codec.signed),
    )


@lru_cache
def _log_betas(beta1: float, beta2: float, device: torch.device) -> Tensor:
    return torch.tensor([beta1, beta2], dtype=torch.float64, device=device).log()


@lru_cache
def _book(signed: bool, device: torch.device) -> Book:
    """Return what dynamic codes are looked up in."""
    return Book(dynamic_codebook(signed).to(device), cells(signed).to(device))
