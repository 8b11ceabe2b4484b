"""What rounding the states does to one update of AdamW, SGD with momentum and Muon.

Two forms. *Stored*: the update is computed from the rounded state itself, as paper B's theorems have it. *Next*: the
state is rounded between two updates, as the optimizers here do it, so that the second update sees its own gradient
unrounded.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from coolbits.analysis.rounding import Rounded, round_trip
from coolbits.analysis.rows import Value
from coolbits.optim.codecs import Blockwise
from coolbits.optim.newton_schulz import orthogonalize
from coolbits.study.recipes.analysis import Theory


def adam_stored(first: Tensor, second: Tensor, codec: Blockwise, eps: float) -> Iterator[Value]:
    """Yield what rounding the second moment does to m / (sqrt(v) + eps), both moments corrected for their start.

    `zeros`: the share of positive entries of v whose code is zero. Their update grows to m / eps, so that no bound
    holds for all gradients (Theorem 1).
    """
    stored = round_trip(second, codec).stored
    positive = second > 0
    yield Value("zeros", float((positive & (stored == 0)).sum() / positive.sum()))
    exact = first.double() / (second.double().sqrt() + eps)
    yield from _changes(exact, first.double() / (stored.sqrt() + eps))


def adam_next(gradients: tuple[Tensor, Tensor], codecs: tuple[Blockwise, Blockwise], recipe: Theory) -> Iterator[Value]:
    """Yield what rounding both moments after the first update does to the second."""
    one, two = gradients

    def update(first: Tensor, second: Tensor) -> Tensor:
        first = recipe.beta1 * first + (1 - recipe.beta1) * two.double()
        second = recipe.beta2 * second + (1 - recipe.beta2) * two.double().square()
        return first / (1 - recipe.beta1**2) / ((second / (1 - recipe.beta2**2)).sqrt() + recipe.eps)

    first = round_trip((1 - recipe.beta1) * one, codecs[0])
    second = round_trip((1 - recipe.beta2) * one.square(), codecs[1])
    yield from _changes(update(first.exact, second.exact), update(first.stored, second.stored))


def sgd_stored(rounded: Rounded) -> Iterator[Value]:
    """Yield the change of the update by M, in units of its root mean square, with Theorem 2's bounds.

    No entry moves by more than s/254, s the largest magnitude of its block.
    """
    norm = float(torch.linalg.vector_norm(rounded.exact))
    typical = norm / math.sqrt(rounded.exact.numel())
    change = rounded.stored - rounded.exact
    bound = rounded.coarseness * float(rounded.scales.max()) / typical
    yield Value("largest_change", float(change.abs().max()) / typical, bound)
    yield Value("relative_change", rounded.distance / norm, rounded.farthest / norm)


def momentum_next(rounded: Rounded, gradient: Tensor, momentum: float) -> Iterator[Value]:
    """Yield the change of the next update of SGD, by momentum * M + G."""
    exact = momentum * rounded.exact + gradient.double()
    norm = float(torch.linalg.vector_norm(exact))
    yield Value("relative_change", momentum * rounded.distance / norm, momentum * rounded.farthest / norm)


def muon_next(rounded: Rounded, gradient: Tensor, momentum: float, steps: int) -> Iterator[Value]:
    """Yield the change of the next update of Muon, by NS(momentum * M + G) in float64."""
    exact, stored = (
        orthogonalize(momentum * state + gradient.double(), steps, torch.float64)
        for state in (rounded.exact, rounded.stored)
    )
    yield Value("relative_change", float(torch.linalg.matrix_norm(stored - exact) / torch.linalg.matrix_norm(exact)))


def _changes(exact: Tensor, stored: Tensor) -> Iterator[Value]:
    change = stored - exact
    yield Value("relative_change", float(torch.linalg.vector_norm(change) / torch.linalg.vector_norm(exact)))
    yield Value("mean_squared_change", float(change.square().mean()))
    yield Value("largest_change", float(change.abs().max()))
