"""Does curvature explain what quantization costs? The loss increase against its second-order expansion."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coolbits.evaluation.curvature import standard_error
from coolbits.evaluation.objective import Objective, Product, finite, inner, rademacher
from coolbits.study.recipes.evaluation import Prediction

MODULES = "modules.parquet"


def measure_prediction(objective: Objective, quantized: Tensor, recipe: Prediction, out: Path) -> dict[str, Any]:
    """Write what each module adds to the prediction into `out`; return the summary.

    With w the weights of `objective`, dW = `quantized` - w (both [n]), gradient g and Hessian H at w:
    L(w + dW) - L(w) = g^T dW + 1/2 dW^T H dW + O(|dW|^3). One product H dW gives every module's share: those of
    dW_m^T (H dW)_m add up to dW^T H dW, and hold half of what a module shares with each other one.

    `random` is the mean of 1/2 z^T H z over random z that have the norm of dW in every parameter: what errors of this
    size would cost if they had nothing to do with the Hessian.
    """
    before = objective.loss()
    change = quantized - objective.weights()
    product = objective.hessian()
    modules = by_module(objective, change, objective.gradient(), product(change))
    modules.to_parquet(out / MODULES, index=False)
    random = random_costs(objective, change, product, recipe)
    with objective.at(quantized):
        after = objective.loss()
    linear, quadratic = (float(modules[name].sum()) for name in ("linear", "quadratic"))
    squared = float(modules.squared_norm.sum())
    numbers = {
        "loss": before,
        "quantized_loss": after,
        "increase": after - before,
        "linear": linear,
        "quadratic": quadratic,
        "predicted": linear + quadratic,
        "squared_norm": squared,
        "curvature": 2 * quadratic / squared if squared else None,
        "random": float(np.mean(random)),
        "random_error": standard_error(random),
    }
    return finite(numbers) | {"weights": int(modules.weights.sum())}


def by_module(objective: Objective, change: Tensor, gradient: Tensor, image: Tensor) -> pd.DataFrame:
    """Return a row for each parameter that `change` [n] changes: its name and number of weights, and its share.

    `image` is H times the change. Columns: module (the parameter's name without `.weight`), weights, squared_norm,
    linear, quadratic (nats a token); sums are float64.
    """
    parts, slopes, bends = (objective.split(vector) for vector in (change, gradient, image))
    rows = [
        {
            "module": name.removesuffix(".weight"),
            "weights": own.numel(),
            "squared_norm": float((own.double() ** 2).sum()),
            "linear": float((own.double() * slopes[name].double()).sum()),
            "quadratic": float((own.double() * bends[name].double()).sum()) / 2,
        }
        for name, own in parts.items()
        if own.any()
    ]
    kinds = {"module": "str", "weights": "int64", "squared_norm": "float64", "linear": "float64"}
    return pd.DataFrame(rows, columns=[*kinds, "quadratic"]).astype(kinds | {"quadratic": "float64"})


def random_costs(objective: Objective, change: Tensor, product: Product, recipe: Prediction) -> list[float]:
    """Return 1/2 z^T H z for random signs z, scaled so that each parameter's have the norm of its part of `change`."""
    generator = torch.Generator().manual_seed(recipe.seed)
    size = torch.cat([own.square().mean().sqrt().expand(own.numel()) for own in objective.split(change).values()])
    costs = []
    for _ in range(recipe.probes):
        noise = rademacher(size, generator) * size
        costs.append(float(inner(noise[None], product(noise))) / 2)
    return costs
