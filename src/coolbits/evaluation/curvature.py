"""Curvature of the loss: the trace of its Hessian, and its largest eigenvalues."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from coolbits.evaluation.objective import Objective, Product, finite, inner, norm, rademacher
from coolbits.study.recipes.evaluation import Curvature

EIGENVALUES, TRACE = "eigenvalues.parquet", "trace.parquet"
_FEWEST_PROBES = 5  # fewer say too little of their own spread to stop by it


class Spectrum(NamedTuple):
    """The largest eigenvalues found, falling, and for each the norm of H v - lambda v; the products it took."""

    values: NDArray[np.float64]
    residuals: NDArray[np.float64]
    products: int


def measure_curvature(objective: Objective, recipe: Curvature, out: Path) -> dict[str, Any]:
    """Write the eigenvalues and the probes of the trace into `out`; return the summary.

    Both draw their random signs anew from the seed, so neither depends on the other. Of a model that gives no finite
    numbers the files hold NaN, the summary None.
    """
    product, weights = objective.hessian(), objective.weights()
    probes = trace_probes(product, weights, recipe)
    start = rademacher(weights, torch.Generator().manual_seed(recipe.seed))
    spectrum = lanczos(product, start, recipe.eigenvalues, recipe.tolerance, recipe.iterations)
    found = {"value": spectrum.values, "residual": spectrum.residuals}
    pd.DataFrame({"rank": range(1, len(spectrum.values) + 1), **found}).to_parquet(out / EIGENVALUES, index=False)
    pd.DataFrame({"probe": range(len(probes)), "value": probes}).to_parquet(out / TRACE, index=False)
    numbers = {
        "loss": objective.loss(),
        "trace": float(np.mean(probes)),
        "trace_error": standard_error(probes),
        "top_eigenvalue": float(spectrum.values[0]),
        "largest_residual": float(spectrum.residuals.max()),
    }
    return finite(numbers) | {"probes": len(probes), "products": spectrum.products, "weights": len(weights)}


def trace_probes(product: Product, like: Tensor, recipe: Curvature) -> list[float]:
    """Return values z^T H z for random signs z, whose mean estimates the trace of H (Hutchinson 1990).

    Stops after `recipe.probes` of them, or once their standard error is below `recipe.trace_tolerance` of the mean.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    values: list[float] = []
    while len(values) < recipe.probes and not _settled(values, recipe.trace_tolerance):
        signs = rademacher(like, generator)
        values.append(float(inner(signs[None], product(signs))))
    return values


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean of independent values; None of a single one."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def lanczos(product: Product, start: Tensor, count: int, tolerance: float, iterations: int) -> Spectrum:
    """Return the `count` algebraically largest eigenvalues of the symmetric operator `product`, [n] -> [n].

    Lanczos' method from `start` [n], every new vector made orthogonal twice to all before it, so that no eigenvalue
    comes back as a ghost (Parlett 1998, chapter 13). It stops once every residual is below `tolerance` times the
    largest of the eigenvalues' magnitudes, or after `iterations`, each of which keeps a vector [n]; fewer eigenvalues
    come back if the start lies in a smaller invariant subspace. Residuals are beta |s|, s the last entry of the
    eigenvector of the tridiagonal matrix; an eigenvalue lies within its residual of the value given. A product that is
    not finite ends it with one eigenvalue, NaN. Inner products are float64, vectors have the dtype of `start`.
    """
    size = len(start)
    basis = start.new_empty(min(iterations, size), size)
    diagonal: list[float] = []
    beside: list[float] = []
    vector = start / norm(start)
    while True:
        basis[len(diagonal)] = vector
        image = product(vector)
        diagonal.append(float(inner(vector[None], image)))
        known = basis[: len(diagonal)]
        for _ in range(2):
            image = image - known.T @ inner(known, image).to(image)
        beta = norm(image)
        if not math.isfinite(beta):
            return Spectrum(np.array([math.nan]), np.array([math.nan]), len(diagonal))
        values, residuals = _ritz(diagonal, beside, beta)
        scale = float(np.abs(values).max())
        enough = len(values) >= count and (residuals[:count] <= tolerance * scale).all()
        exhausted = beta <= torch.finfo(start.dtype).eps * scale or len(diagonal) == len(basis)
        if enough or exhausted:
            return Spectrum(values[:count], residuals[:count], len(diagonal))
        beside.append(beta)
        vector = image / beta


def _ritz(
    diagonal: Sequence[float], beside: Sequence[float], beta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvalues of the tridiagonal matrix, falling, and their residuals."""
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return values[::-1], beta * np.abs(vectors[-1])[::-1]


def _settled(values: Sequence[float], tolerance: float) -> bool:
    error = standard_error(values) if len(values) >= _FEWEST_PROBES else None
    return error is not None and error <= tolerance * abs(float(np.mean(values)))
