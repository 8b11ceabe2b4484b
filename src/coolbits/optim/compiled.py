"""Updates with 8-bit states for CPUs, compiled: one pass over all tensors, the same bits as `reference` returns.

torch.compile makes slower code of the same updates, with linear codes 1.7 times and with dynamic ones twice or more: it
writes a block's new states out and reads them again, and its look-ups are no vector code. It also compiles for half a
minute, this for a second, once a machine.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from math import frexp
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coolbits.native import library, run_parts
from coolbits.optim.adam import Adam
from coolbits.optim.codebook import dynamic_codebook, middles
from coolbits.optim.codecs import Blockwise, Parts
from coolbits.optim.newton_schulz import gram
from coolbits.optim.reference import adam_factors
from coolbits.optim.sgd import SGD

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("lowbit.cpp", "codecs.cpp"))
_STRETCH = 379 / 256  # `Dynamic::stretch` in codecs.cpp

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
    return ctypes.c_void_p(_lookups(codec.signed).data_ptr() if codec.kind == "dynamic" else None)


@cache
def _lookups(signed: bool) -> Tensor:
    """Return what `Dynamic` in codecs.cpp looks up, as int32.

    These are entries, middles above them (last: inf), cells, spans, and the entries once more, byte by byte.
    """
    above = torch.cat([middles(signed), torch.tensor([torch.inf])])
    numbers = [dynamic_codebook(signed), above]
    planes = dynamic_codebook(signed).view(torch.uint8).view(256, 4).T.flatten().view(torch.int32)
    return torch.cat([*(part.view(torch.int32) for part in numbers), _cells(signed), _spans(signed), planes])


def _cells(signed: bool) -> Tensor:
    """Return a cell for all float32 with the same leading bits, 15 (16 if unsigned), int32 [2^15 or 2^16].

    A ratio is looked up times 379 / 256: so no cell has two middles, and every middle is a thousand float32 away from
    its cell's edges. Without that factor some would be edges. A cell has 8 bits each for the code of its smallest and
    of its largest magnitudes, the same code where there is no middle, then 16 for those that follow the middle's
    leading ones. From these, five float32 are taken: the middle is somewhere in the next ten.
    """
    leading = 15 if signed else 16
    entries = dynamic_codebook(signed).double()
    bits = ((entries[1:] + entries[:-1]) / 2 * _STRETCH).float().view(torch.int32).long() % 2**32
    cell, count = bits >> 32 - leading, 2**leading
    middle = torch.zeros(count, dtype=torch.int64).index_fill(0, cell, 1)
    rising = torch.cat([torch.arange(count // 2, count).flip(0), torch.arange(count // 2)])  # the first bit is the sign
    low = torch.empty_like(middle)
    low[rising] = middle[rising].cumsum(0) - middle[rising]
    negative = torch.arange(count) >= count // 2
    near, far = low + middle * negative, low + middle * ~negative
    middle[cell] = bits % 2 ** (32 - leading) - 5 >> 16 - leading
    return (middle << 16 | far << 8 | near).to(torch.int32)


def _spans(signed: bool) -> Tensor:
    """Return how a magnitude becomes a code without a look-up in cells, as int32 [5 * 16].

    A span is the entry 0 alone, the entries of a power of ten, or 1 alone; between two spans is an edge, the middle of
    their neighbours. The n entries of a power are the middles of n equal parts of 0.1..1 times it, and n is also how
    many entries all lower powers have, with one for 0 (two if unsigned). So a magnitude x has the place n * u, rounded
    down, with u = x / (0.9 * power) + 8 / 9, from 1 to 2. A span's number is how far a float32 u is turned to the left
    to have that place as its last bits (its exponent's last bit is the 1 before the point): 9 and the logarithm of n.

    Magnitudes are looked up times 379 / 256, as in `_cells`. By span modulo 16, the edge above it (inf: none). By a
    float's exponent modulo 32, the span that its octave begins in; an octave has one edge at most, not near its ends.
    By span modulo 16, the factor of u. Then the least magnitude that is looked up, and the summand of u.

    A summand larger by 2^-19 makes numbers in doubt those with eleven zeros (ten if unsigned) after the place's bits or
    after one more, at most 2^-18 above it: an edge's u is halfway between two places in the lower span, and beyond 2,
    so that there is one bit less behind the point. The two spans of one entry have factors that make it so: 0's has its
    edge at 2, the edge of 1 is at 1. An edge is shifted by six float32 into its other span: so all magnitudes that
    rounding may take across it are in doubt.
    """
    entries = dynamic_codebook(signed).double()
    entries = entries[entries >= 0]
    counts = [(1 if signed else 2) << power for power in range(7)]  # entries a power of ten, from 1e-7 to 1
    firsts = [1 + sum(counts[:power]) for power in range(7)] + [len(entries) - 1]
    halves = [_STRETCH * float(entries[first - 1] + entries[first]) / 2 for first in firsts]
    shifts = [7e-7] * 7 + [-7e-7]
    edges = [half * (1 + shift) for half, shift in zip(halves, shifts, strict=True)]
    octaves = [frexp(edge)[1] - 1 for edge in edges]
    summand = 8 / 9 + 2**-19
    slopes = [10.0 ** (6 - power) / (0.9 * _STRETCH) for power in range(7)]
    slopes = [(2 + 2**-11 - summand) / halves[0], *slopes, (1 + 2**-20 - summand) / halves[-1]]
    zero = 8 if signed else 9
    above, factor = torch.full((16,), torch.inf, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)
    for place, slope in enumerate(slopes):
        factor[(zero + place) % 16] = slope
    for place, edge in enumerate(edges):
        above[(zero + place) % 16] = edge
    below = torch.zeros(32, dtype=torch.int32)
    for octave in range(-23, 1):
        below[(octave + 127) % 32] = zero + sum(edge < octave for edge in octaves)
    ends = torch.tensor([2.0**-23, summand, *[0.0] * 14], dtype=torch.float64)  # a register each: see `_lookups`
    above, factor, ends = (part.float().view(torch.int32) for part in (above, factor, ends))
    return torch.cat([above, below, factor, ends])
