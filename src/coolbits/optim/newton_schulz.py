"""Newton-Schulz iteration: a matrix with its singular values pushed towards 1 (Jordan et al. 2024, "Muon")."""

from typing import Protocol

import torch
from torch import Tensor

from coolbits.products import bfloat16_products

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_TINY = 1e-7


class Gram(Protocol):
    """A function that returns alpha * X Xᵀ, or that + beta * add for a symmetric `add`; `optim.kernels` has another."""

    def __call__(self, x: Tensor, add: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0) -> Tensor: ...


def gram(x: Tensor, add: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0) -> Tensor:  # [batch, m, n]
    """Return alpha * X Xᵀ of each matrix, or that + beta * add: [batch, m, m], in its dtype, all of it computed."""
    if add is not None:
        return torch.baddbmm(add, x, x.mT, beta=beta, alpha=alpha)
    product = x @ x.mT
    return product if alpha == 1.0 else alpha * product


def orthogonalize(
    matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16, gram: Gram = gram
) -> Tensor:  # [..., m, n]
    """Return approximately U Vᵀ for each matrix U S Vᵀ: after 5 steps most singular values lie in 0.7 to 1.2.

    X is divided by its Frobenius norm + 1e-7, transposed if it is tall, and replaced `steps` times by
    a X + (b A + c A²) X with A = X Xᵀ and (a, b, c) = (3.4445, -4.7750, 2.0315). The norm is taken in the input's
    dtype, the iteration runs in `dtype`, and the result has the input's dtype and shape. Singular values below about
    0.001 of the norm stay small.
    """
    a, b, c = COEFFICIENTS
    rows, columns = matrices.shape[-2:]
    norms = torch.linalg.matrix_norm(matrices, keepdim=True)
    start = (matrices / (norms + _TINY)).to(dtype)
    iterate = (start.mT if rows > columns else start).reshape(-1, min(rows, columns), max(rows, columns))
    with bfloat16_products(matrices.device.type, dtype):
        for _ in range(steps):
            product = gram(iterate)  # [batch, min(m, n), min(m, n)]
            polynomial = gram(product, product, c, b)  # b A + c A Aᵀ, and A is symmetric
            iterate = torch.baddbmm(iterate, polynomial, iterate, beta=a)
    result = iterate.mT if rows > columns else iterate
    return result.reshape(matrices.shape).to(matrices.dtype)
