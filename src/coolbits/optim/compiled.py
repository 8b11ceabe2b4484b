"""Updates with 8-bit states for CPUs, compiled: one pass over all tensors, the same bits as `reference` returns.

torch.compile makes slower code of the same updates, with linear codes 1.7 times and with dynamic ones twice or more: it
writes a block's new states out and reads them again, and its look-ups are no vector code. It also compiles for half a
minute, this for a second, once a machine.
"""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coolbits.native import library, run_parts
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise, Parts
from coolbits.optim.lookups import lookups
from coolbits.optim.newton_schulz import gram
from coolbits.optim.reference import adam_factors
from coolbits.optim.sgd import SGD

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("lowbit.cpp", "codecs.cpp"))

__all__ = ["adam_step", "available", "gram", "momentum_step", "sgd_step"]


def available() -> bool:
    """Return whether there is a compiler that makes these functions, or it made them before."""
    return library(*_SOURCES) is not None


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
    """Make one update of `rule` in place of weights, codes and scales; `step` is its number, from 1.

    Raises:
        ValueError: if the codecs' block sizes differ, the first one is not signed or the second one is, or a tensor
            does not fit (see `_require`).
    """
    first, second = codecs
    if (first.signed, second.signed) != (True, False):
        raise ValueError("the compiled updates take a signed first moment and an unsigned second one")
    if first.block_size != second.block_size:
        raise ValueError(f"one pass has one block size, not {first.block_size} and {second.block_size}")
    shrink, size, inverse_root = adam_factors(rule, step, lr)
    numbers = rule.beta1, 1 - rule.beta1, rule.beta2, 1 - rule.beta2, shrink, size, inverse_root, rule.eps
    sizes = _sizes(weights)
    rows = [
        _require("weights", weights, torch.float32, sizes),
        _require("gradients", _plain(gradients), torch.float32, sizes),
        *_states("exp_avg", exp_avg, first, sizes),
        *_states("exp_avg_sq", exp_avg_sq, second, sizes),
    ]
    arguments = _tables(first), _tables(second), (ctypes.c_float * 8)(*numbers)
    _run(_library().adam_step, rows, first.block_size, *arguments)


def sgd_step(
    weights: list[Tensor], gradients: list[Tensor], momenta: list[Parts], codec: Blockwise, rule: SGD, lr: float
) -> None:
    """Make one update of `rule` in place of weights, codes and scales.

    Raises:
        ValueError: if a tensor does not fit (see `_require`).
    """
    numbers = rule.momentum, 1 - lr * rule.weight_decay, lr
    _momentum(weights, gradients, momenta, codec, rule.nesterov, True, numbers)


def momentum_step(
    gradients: list[Tensor], momenta: list[Parts], codec: Blockwise, momentum: float, nesterov: bool
) -> list[Tensor]:
    """Update M <- momentum * M + G in place of codes and scales; return the directions, float32.

    They are momentum * M + G with `nesterov`, else M, of the new M as it is before it is encoded.

    Raises:
        ValueError: if a tensor does not fit (see `_require`).
    """
    directions = [torch.empty(gradient.shape) for gradient in gradients]
    _momentum(directions, gradients, momenta, codec, nesterov, False, (momentum, 0.0, 0.0))
    return directions


def _momentum(
    outputs: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Parts],
    codec: Blockwise,
    nesterov: bool,
    update: bool,
    numbers: tuple[float, float, float],
) -> None:
    if not codec.signed:
        raise ValueError("the compiled updates take a signed momentum")
    sizes = _sizes(outputs)
    rows = [
        _require("weights", outputs, torch.float32, sizes),
        _require("gradients", _plain(gradients), torch.float32, sizes),
        *_states("momenta", momenta, codec, sizes),
    ]
    arguments = _tables(codec), ctypes.c_bool(nesterov), ctypes.c_bool(update), (ctypes.c_float * 3)(*numbers)
    _run(_library().momentum_step, rows, codec.block_size, *arguments)


def _run(function: Callable[..., Any], rows: Sequence[list[Tensor]], block_size: int, *arguments: Any) -> None:
    """Call `function` on all blocks, in parts that PyTorch's threads take one after the other: not all run as fast."""
    sizes = _sizes(rows[0])
    count = len(sizes)
    addresses = [[tensor.data_ptr() for tensor in row] for row in rows]
    columns = [(ctypes.c_int64 * count)(*row) for row in (sizes, *addresses)]
    pointer = ctypes.POINTER(ctypes.c_int64)
    table = (pointer * len(columns))(*(ctypes.cast(column, pointer) for column in columns))
    blocks = sum(-(-size // block_size) for size in sizes)
    threads = min(torch.get_num_threads(), blocks)
    parts = max(threads, min(8 * threads, blocks // 64))
    edges = [blocks * part // max(parts, 1) for part in range(parts + 1)]

    def run(part: int) -> None:
        begin, end = map(ctypes.c_int64, edges[part : part + 2])
        function(table, begin, end, ctypes.c_int64(block_size), *arguments)

    run_parts(run, parts, threads)


def _library() -> ctypes.CDLL:
    found = library(*_SOURCES)
    if found is None:
        raise RuntimeError("there is no C++ compiler; ask `available` first")
    return found


def _plain(gradients: list[Tensor]) -> list[Tensor]:
    return [gradient.to(torch.float32).contiguous() for gradient in gradients]


def _sizes(tensors: list[Tensor]) -> list[int]:
    return [tensor.numel() for tensor in tensors]


def _states(name: str, states: list[Parts], codec: Blockwise, sizes: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    codes, scales = ([parts[part] for parts in states] for part in ("codes", "scales"))
    blocks = [-(-size // codec.block_size) for size in sizes]
    return (
        _require(f"codes of {name}", codes, codec.dtype, sizes),
        _require(f"scales of {name}", scales, torch.float32, blocks),
    )


def _require(name: str, tensors: list[Tensor], dtype: torch.dtype, sizes: list[int]) -> list[Tensor]:
    """Return the tensors, checked: the functions are given addresses and would read beside what does not fit.

    Raises:
        ValueError: if they are not contiguous tensors of `dtype` and these sizes on the CPU.
    """
    found = {(tensor.dtype, tensor.device.type, tensor.is_contiguous()) for tensor in tensors}
    if not found <= {(dtype, "cpu", True)}:
        kinds = sorted(f"{kind} on {device}{'' if packed else ', not contiguous'}" for kind, device, packed in found)
        raise ValueError(f"{name} are {' and '.join(kinds)}; the compiled updates take contiguous {dtype} on the CPU")
    if _sizes(tensors) != sizes:
        raise ValueError(f"{name} have {_sizes(tensors)} elements, not {sizes}")
    return tensors


def _tables(codec: Blockwise) -> ctypes.c_void_p:
    return ctypes.c_void_p(lookups(codec.signed).data_ptr() if codec.kind == "dynamic" else None)
