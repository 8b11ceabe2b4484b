"""Randomized Hadamard rotations: orthogonal matrices that spread every outlier over all inputs.

Q = diag(signs) (H x R) with x the Kronecker product, H Sylvester's Hadamard matrix of the largest power of two that
divides the size, R a random orthogonal matrix of the odd rest (QuaRot, Ashkboos et al. 2024, section 3).
"""

from functools import lru_cache

import torch


def rotation(size: int, seed: int) -> torch.Tensor:
    """Return Q, orthogonal, float64 [size, size]: the same for the same size and seed."""
    return rotate(torch.eye(size, dtype=torch.float64), seed)


def rotate(vectors: torch.Tensor, seed: int) -> torch.Tensor:
    """Return x Q for vectors x [..., size], in float64: n log n operations a vector if the size is a power of two."""
    signs, rest = (part.to(vectors.device) for part in _random_parts(vectors.shape[-1], seed))
    grid = (vectors.to(torch.float64) * signs).unflatten(-1, (-1, len(rest)))
    return (_hadamard(grid) @ rest).flatten(-2)


def rotate_back(vectors: torch.Tensor, seed: int) -> torch.Tensor:
    """Return x Q^T for vectors x [..., size], in float64: undo `rotate`."""
    signs, rest = (part.to(vectors.device) for part in _random_parts(vectors.shape[-1], seed))
    grid = vectors.to(torch.float64).unflatten(-1, (-1, len(rest)))
    return (_hadamard(grid) @ rest.T).flatten(-2) * signs


def _hadamard(grid: torch.Tensor) -> torch.Tensor:
    """Return H times matrices [..., power, columns] (fast Walsh-Hadamard transform)."""
    power = grid.shape[-2]
    half = 1
    while half < power:
        first, second = grid.unflatten(-2, (-1, 2, half)).unbind(-3)  # [..., power / 2 half, half, columns]
        grid = torch.stack((first + second, first - second), -3).flatten(-4, -2)
        half *= 2
    return grid / power**0.5


@lru_cache(maxsize=16)
def _random_parts(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return signs [size] and R [odd rest, odd rest], float64."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1
    odd = size // (size & -size)
    return signs, torch.linalg.qr(torch.randn(odd, odd, generator=generator, dtype=torch.float64)).Q
