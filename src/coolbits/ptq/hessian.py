"""The Hessian of a layer's output error, and the factor of its inverse that GPTQ sweeps with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from coolbits.products import matmul
from coolbits.ptq.grids import group_size_for
from coolbits.study.recipes.methods import GPTQ

_KRYLOV_VECTORS = 6
_STRIP = 192  # columns of the sum computed at once
_ROWS = 1024  # vectors added at once: their float64 copy stays in the cache


@dataclass(frozen=True)
class Factor:
    """What GPTQ needs to know of a Hessian, or why it cannot run (`reason`; then `spread` is None).

    `order[k]` is the input handled k-th. With U the upper Cholesky factor of the inverse of the damped Hessian in
    that order (inv(H) = U^T U), row k of `spread` is U[k] / U[k, k]: the share of the error made at the k-th input
    that is taken off each later one. `condition` estimates the ratio of the damped Hessian's extreme eigenvalues.
    """

    order: torch.Tensor  # int64 [inputs]
    dead: torch.Tensor  # bool [inputs], in the inputs' own order
    damping: float
    attempts: int
    spread: torch.Tensor | None  # [inputs, inputs], unit upper triangular, in the Hessian's precision
    condition: float | None = None
    reason: str | None = None
    finite: bool = True  # whether the Hessian is


class HessianSum:
    """A running sum of x x^T over input vectors x, in `precision`; where `device` is no CPU, in float32."""

    def __init__(self, inputs: int, device: torch.device, precision: torch.dtype) -> None:
        dtype = precision if device.type == "cpu" else torch.float32
        self._sum = torch.zeros(inputs, inputs, device=device, dtype=dtype)
        self._precision = precision
        self._count = 0

    def add(self, vectors: torch.Tensor) -> None:
        """Add vectors [..., inputs]."""
        rows = vectors.detach().reshape(-1, vectors.shape[-1])
        for some in rows.split(_ROWS):
            self._add(some.to(self._sum.dtype))
        self._count += rows.shape[0]

    def _add(self, rows: torch.Tensor) -> None:
        for start in range(0, rows.shape[1], _STRIP):  # what lies below the diagonal is known from what lies above
            strip = slice(start, start + _STRIP)
            self._sum[strip, start:] += matmul(rows[:, strip].T, rows[:, start:])

    def hessian(self) -> torch.Tensor:
        """Return 2 * mean(x x^T), [inputs, inputs], in the precision; zeros if nothing was added."""
        mean = self._sum.to(self._precision, copy=True).mul_(2 / max(self._count, 1))
        for start in range(0, len(mean), _STRIP):  # mirrored in place: a third matrix would be the largest of all
            stop = start + _STRIP
            block = mean[start:stop, start:stop]
            block.copy_(block.triu() + block.triu(1).T)
            mean[stop:, start:stop] = mean[start:stop, stop:].T
        return mean


def factorize(hessian: torch.Tensor, recipe: GPTQ) -> Factor:
    """Order, damp and factorize a Hessian [inputs, inputs], float64 or float32, in its precision.

    Damping adds a share of the mean diagonal of live inputs to the diagonal (GPTQ, step 3). If the matrix then is not
    positive definite, the share grows by `damping_step`, `damping_attempts` times in all; with `damping_accumulates`
    each attempt adds its share, of the mean as it is by then, to what the one before left. Dead inputs, zero in
    all of the calibration, get the mean diagonal as their own and go last in activation order. It takes the memory of
    three matrices beside the Hessian.
    """
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    order = _order(diagonal, recipe)
    if not is_finite(hessian):
        return Factor(order, dead, recipe.damping, 0, None, reason="the Hessian is not finite", finite=False)
    if dead.all():
        return Factor(order, dead, recipe.damping, 0, None, reason="no calibration input other than zero")
    mean = diagonal[~dead].mean()
    ordered = hessian.clone() if recipe.order == "natural" else hessian[order[:, None], order]
    undamped = ordered.diagonal() + torch.where(dead[order], mean, 0.0)
    damping = 0.0
    for attempt in range(recipe.damping_attempts):
        share = recipe.damping + attempt * recipe.damping_step
        damping = damping + share * (1 + damping) if recipe.damping_accumulates else share
        ordered.diagonal().copy_(undamped + damping * mean)
        upper = _inverse_factor(ordered)
        if upper is not None:
            condition = _condition(ordered, upper)
            spread = upper.div_(upper.diagonal()[:, None].clone())
            return Factor(order, dead, damping, attempt + 1, spread, condition)
    reason = "the damped Hessian is not positive definite"
    return Factor(order, dead, damping, recipe.damping_attempts, None, reason=reason)


def is_finite(matrix: torch.Tensor) -> bool:
    """Say whether a matrix holds finite numbers alone, by their sum: `torch.isfinite` would copy the matrix."""
    return bool(matrix.sum().isfinite())


def _order(diagonal: torch.Tensor, recipe: GPTQ) -> torch.Tensor:
    """Return the inputs in the order of the sweep, int64 [inputs]; equals stay as they lie.

    "group-aware" is GPTQModel's `act_group_aware` (Gafni et al. 2025, arXiv 2505.14638): groups by their largest
    diagonal, and inputs of a group by theirs.
    """
    inputs = len(diagonal)
    match recipe.order:
        case "natural":
            return torch.arange(inputs, device=diagonal.device)
        case "activation":
            return torch.argsort(diagonal, descending=True, stable=True)
        case "group-aware":
            size = group_size_for(recipe.grid, inputs)
            groups = diagonal.reshape(-1, size)
            within = torch.argsort(groups, dim=1, descending=True, stable=True)
            among = torch.argsort(groups.amax(1), descending=True, stable=True)
            starts = torch.arange(0, inputs, size, device=diagonal.device)
            return (starts[:, None] + within)[among].flatten()


def _condition(matrix: torch.Tensor, upper: torch.Tensor) -> float:
    """Estimate, from below, the largest over the smallest eigenvalue of `matrix`, whose inverse is U^T U."""
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(matrix)
    largest = _largest_eigenvalue(lambda vector: matrix @ vector, start)
    return largest * _largest_eigenvalue(lambda vector: upper.T @ (upper @ vector), start)


def _largest_eigenvalue(times: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor) -> float:
    """Return what a few steps of Lanczos' method make of the largest eigenvalue of a positive definite matrix."""
    vectors, images = [start / torch.linalg.vector_norm(start)], []
    while True:
        images.append(times(vectors[-1]))
        basis = torch.stack(vectors)  # [steps, inputs]
        new = images[-1] - basis.T @ (basis @ images[-1])
        size = torch.linalg.vector_norm(new)
        if len(vectors) == _KRYLOV_VECTORS or size <= 1e-9 * torch.linalg.vector_norm(images[-1]):
            break
        vectors.append(new / size)
    projected = basis @ torch.stack(images).T
    return float(torch.linalg.eigvalsh((projected + projected.T) / 2)[-1])


def _inverse_factor(matrix: torch.Tensor) -> torch.Tensor | None:
    """Return the upper U with inv(matrix) = U^T U, or None if `matrix` is not positive definite.

    A Cholesky factorization from the last row up gives matrix = R R^T with R upper triangular; then U = inv(R). The
    inverse itself, which costs accuracy, is never formed. It goes by halves, so that most of it is products:

        matrix = [[A, B], [B^T, C]],  C = R2 R2^T,  S = B inv(R2)^T,  A - S S^T = R1 R1^T,  R = [[R1, S], [0, R2]]
    """
    size = len(matrix)
    if size <= _STRIP:
        return _small_inverse_factor(matrix)
    half = size // 2
    last = _inverse_factor(matrix[half:, half:])
    if last is None:
        return None
    shares = matmul(matrix[:half, half:], last.T)
    first = _inverse_factor(matrix[:half, :half] - matmul(shares, shares.T))
    if first is None:
        return None
    corner = matmul(first, matmul(shares, last)).neg_()
    del shares
    factor = torch.zeros_like(matrix)
    factor[:half, :half], factor[:half, half:], factor[half:, half:] = first, corner, last
    return factor


def _small_inverse_factor(matrix: torch.Tensor) -> torch.Tensor | None:
    lower, failed = torch.linalg.cholesky_ex(matrix.flip(0, 1))
    if failed:
        return None
    identity = torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    factor = torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
    return factor if is_finite(factor) else None
