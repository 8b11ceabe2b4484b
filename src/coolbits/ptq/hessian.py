"""The Hessian of a layer's output error, and the factor of its inverse that GPTQ sweeps with."""

from dataclasses import dataclass

import torch

from coolbits.study.recipes.ptq import GPTQ


@dataclass(frozen=True)
class Factor:
    """What GPTQ needs to know of a Hessian, or why it cannot run (`reason`; then `spread` is None).

    `order[k]` is the input handled k-th. With U the upper Cholesky factor of the inverse of the damped Hessian in
    that order (inv(H) = U^T U), row k of `spread` is U[k] / U[k, k]: the share of the error made at the k-th input
    that is taken off each later one.
    """

    order: torch.Tensor  # int64 [inputs]
    dead: torch.Tensor  # bool [inputs], in the inputs' own order
    damping: float
    attempts: int
    spread: torch.Tensor | None  # float64 [inputs, inputs], unit upper triangular
    reason: str | None = None


class HessianSum:
    """A running sum of x x^T over input vectors x, in `dtype` on `device`."""

    def __init__(self, inputs: int, device: torch.device, dtype: torch.dtype) -> None:
        self._sum = torch.zeros(inputs, inputs, device=device, dtype=dtype)
        self._count = 0

    def add(self, vectors: torch.Tensor) -> None:
        """Add vectors [..., inputs]."""
        rows = vectors.detach().reshape(-1, vectors.shape[-1]).to(self._sum.dtype)
        self._sum.addmm_(rows.T, rows)
        self._count += rows.shape[0]

    def hessian(self) -> torch.Tensor:
        """Return 2 * mean(x x^T), float64 [inputs, inputs]; zeros if nothing was added."""
        return self._sum.to(torch.float64) * (2 / max(self._count, 1))


def factorize(hessian: torch.Tensor, recipe: GPTQ) -> Factor:
    """Order, damp and factorize a Hessian [inputs, inputs] (float64).

    Damping adds a share of the mean diagonal of live inputs to the diagonal (GPTQ, step 3). If the matrix then
    is not positive definite, the share grows by `damping_step`, `damping_attempts` times in all. Dead inputs, zero in
    all of the calibration, get the mean diagonal as their own and go last in activation order.
    """
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    order = torch.arange(len(diagonal), device=hessian.device)
    if not torch.isfinite(hessian).all():
        return Factor(order, dead, recipe.damping, 0, None, "the Hessian is not finite")
    if dead.all():
        return Factor(order, dead, recipe.damping, 0, None, "no calibration input other than zero")
    if recipe.order == "activation":
        order = torch.argsort(diagonal, descending=True, stable=True)
    mean = diagonal[~dead].mean()
    ordered = hessian[order[:, None], order]
    ordered.diagonal().add_(torch.where(dead[order], mean, 0.0))
    for attempt in range(recipe.damping_attempts):
        damping = recipe.damping + attempt * recipe.damping_step
        damped = ordered.clone()
        damped.diagonal().add_(damping * mean)
        upper = _inverse_factor(damped)
        if upper is not None:
            return Factor(order, dead, damping, attempt + 1, upper / upper.diagonal()[:, None])
    return Factor(order, dead, damping, recipe.damping_attempts, None, "the damped Hessian is not positive definite")


def _inverse_factor(matrix: torch.Tensor) -> torch.Tensor | None:
    """Return the upper U with inv(matrix) = U^T U, or None if `matrix` is not positive definite.

    A Cholesky factorization from the last row up gives matrix = R R^T with R upper triangular; then U = inv(R). The
    inverse itself, which costs accuracy, is never formed.
    """
    lower, failed = torch.linalg.cholesky_ex(matrix.flip(0, 1))
    if failed:
        return None
    eye = torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    upper = torch.linalg.solve_triangular(lower.flip(0, 1), eye, upper=True)
    return upper if bool(torch.isfinite(upper).all()) else None
