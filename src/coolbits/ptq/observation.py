"""What AWQ has to know of a block: its layers' inputs, in sums, and the calls of modules that it will call again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from coolbits.models.quantized import weight_matrix
from coolbits.ptq.hessian import HessianSum
from coolbits.ptq.hooks import Hook, first_of, full_precision, hooked
from coolbits.ptq.tracing import Block, Chunk, real_rows


class Call(NamedTuple):
    """What a module was called with, what it gave, and which positions hold tokens; None if all do."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    output: torch.Tensor  # float32 [sequences, length, width], or of a shape of the module's own
    real: torch.Tensor | None


@dataclass(frozen=True)
class Seen:
    """What the calibration shows of a block: of its layers' inputs, and of the calls of modules that hold readers."""

    hessians: dict[str, torch.Tensor]  # float64 [inputs, inputs]: 2 * mean(x x^T)
    magnitudes: dict[str, torch.Tensor]  # float64 [inputs]: mean(|x|)
    calls: dict[nn.Module, list[Call]]
    outputs: tuple[Chunk, ...]


def observe(block: Block, inputs: Sequence[Chunk], linears: Mapping[str, nn.Module], parents: set[nn.Module]) -> Seen:
    """Run a block over its inputs once; keep the calls of `parents`, save where they are linear layers themselves.

    Padded positions are left out. Sums are kept in float64 on the CPU; those of x x^T in float32 elsewhere.
    """
    device = block.device
    firsts = {group[0]: weight_matrix(linears[group[0]]).shape[1] for group in block.groups}
    sums = {name: HessianSum(width, device, torch.float64) for name, width in firsts.items()}
    totals = {name: torch.zeros(width, dtype=torch.float64, device=device) for name, width in firsts.items()}
    calls: dict[nn.Module, list[Call]] = {parent: [] for parent in parents - set(linears.values())}

    def adding(name: str, real: torch.Tensor | None) -> Hook:
        def hook(arguments: tuple[torch.Tensor, ...], _keywords: dict[str, Any]) -> None:
            vectors = real_rows(arguments[0], real)
            sums[name].add(vectors)
            totals[name].add_(vectors.abs().sum(0, dtype=torch.float64))

        return hook

    def keeping(parent: nn.Module, real: torch.Tensor | None) -> Hook:
        def hook(arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            # A copy: the block may add to it in place.
            calls[parent].append(Call(arguments, keywords, first_of(output).clone(), real))

        return hook

    outputs, tokens = [], 0
    for chunk in inputs:
        hidden, real = chunk.hidden, chunk.real
        tokens += hidden.shape[0] * hidden.shape[1] if real is None else int(real.sum())
        before = {linears[name]: adding(name, real) for name in firsts}
        behind = {parent: keeping(parent, real) for parent in calls}
        with full_precision(device), hooked(before), hooked(behind, after=True):
            outputs.append(block.run(chunk))
    leaders = {name: group[0] for group in block.groups for name in group}
    hessians = {name: total.hessian() for name, total in sums.items()}
    means = {name: total / tokens for name, total in totals.items()}
    return Seen(
        {name: hessians[first] for name, first in leaders.items()},
        {name: means[first] for name, first in leaders.items()},
        calls,
        tuple(outputs),
    )
