"""How far Muon's update moves when its momentum is rounded: exact polar factor and Newton-Schulz iteration."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from coolbits.analysis.rows import Value
from coolbits.optim.newton_schulz import COEFFICIENTS, orthogonalize

_GRID = 1 << 16


@dataclass(frozen=True)
class Polar:
    """A momentum, float64, with its polar factor U Vᵀ and its singular values, largest first."""

    momentum: Tensor  # [m, n]
    factor: Tensor  # [m, n]
    singular: Tensor  # [min(m, n)]

    @classmethod
    def of(cls, momentum: Tensor) -> "Polar":
        """Decompose a momentum."""
        left, singular, right = torch.linalg.svd(momentum.double(), full_matrices=False)
        return cls(momentum.double(), left @ right, singular)

    @property
    def smallest(self) -> float:
        """The smallest singular value."""
        return float(self.singular[-1])


def spectrum(exact: Polar) -> Iterator[Value]:
    """Yield what the bounds depend on: extreme singular values, their ratio, |M|_F² / sigma_max²."""
    largest, smallest = float(exact.singular[0]), exact.smallest
    yield Value("sigma_max", largest)
    yield Value("sigma_min", smallest)
    yield Value("condition", largest / smallest if smallest else math.inf)
    yield Value("stable_rank", float(exact.singular.square().sum()) / largest**2)


def polar_change(exact: Polar, rounded: Polar) -> Value:
    """Return |O - O'|_F / |O|_F of the polar factors, with the bound 2 |A - B|_F / (sigma_min(A) + sigma_min(B)).

    Li (1995, SIAM J. Matrix Anal. Appl. 16) has it for square matrices, Li & Sun (2002, ibid. 23) for rectangular ones
    of full rank. With A = OH and B = O'K, <O - O', A - B> = tr((H + K)(I - Re OᵀO')) is at least the sum of the
    smallest singular values times tr(I - Re OᵀO') = |O - O'|_F² / 2; Cauchy and Schwarz give the rest.
    """
    distance = float(
        torch.linalg.matrix_norm(rounded.momentum - exact.momentum) / torch.linalg.matrix_norm(exact.factor)
    )
    gap = exact.smallest + rounded.smallest
    bound = 2 * distance / gap if gap else math.inf
    return Value("polar_change", _relative(rounded.factor - exact.factor, exact.factor), bound)


def iteration_change(exact: Tensor, rounded: Tensor, steps: int) -> Value:
    """Return |NS(A) - NS(B)|_F / |NS(A)|_F of `steps` steps in float64, with a bound for any A and B, singular or not.

    Newton-Schulz applies one odd polynomial f to the singular values of A / |A|_F. An odd f with |f'| <= L on [-1, 1]
    moves a matrix by at most L times the move of its argument, in Frobenius norm: the matrix [[0, X], [Xᵀ, 0]] is
    symmetric, and for symmetric matrices a function is as Lipschitz as it is on numbers.
    """
    before, after = (orthogonalize(matrix, steps, torch.float64) for matrix in (exact, rounded))
    start, moved = (orthogonalize(matrix, 0, torch.float64) for matrix in (exact, rounded))  # only normalized
    bound = steepest(steps) * _relative(moved - start, before)
    return Value(f"ns{steps}_change", _relative(after - before, before), bound)


def muon_stored(exact: Polar, stored: Tensor, steps: Sequence[int]) -> Iterator[Value]:
    """Yield the changes of Muon's update, exact, iterated, and iterated in bfloat16, when its momentum is rounded."""
    yield polar_change(exact, Polar.of(stored))
    for count in steps:
        yield iteration_change(exact.momentum, stored, count)
    before, after = (_in_bfloat16(matrix, steps[0]) for matrix in (exact.momentum, stored))
    yield Value(f"ns{steps[0]}_bfloat16_change", _relative(after - before, before))


def arithmetic_error(momentum: Tensor, steps: int) -> Value:
    """Return the error of Newton-Schulz in bfloat16, against float64: what Muon's update has without any rounding."""
    exact = orthogonalize(momentum, steps, torch.float64)
    return Value(f"ns{steps}_bfloat16_error", _relative(_in_bfloat16(momentum, steps) - exact, exact))


@cache
def steepest(steps: int) -> float:
    """Return the largest slope of `steps` iterations of the polynomial on [0, 1]; at 0 it is 3.4445 to that power."""
    a, b, c = COEFFICIENTS
    value = torch.linspace(0, 1, _GRID, dtype=torch.float64)
    slope = torch.ones_like(value)
    for _ in range(steps):
        square = value.square()
        slope = slope * (a + 3 * b * square + 5 * c * square.square())
        value = value * (a + b * square + c * square.square())
    return float(slope.abs().max())


def _in_bfloat16(momentum: Tensor, steps: int) -> Tensor:
    return orthogonalize(momentum.float(), steps, torch.bfloat16).double()


def _relative(change: Tensor, of: Tensor) -> float:
    return float(torch.linalg.matrix_norm(change) / torch.linalg.matrix_norm(of))
