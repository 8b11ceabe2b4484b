"""The loss on a plane: through a checkpoint, the one before it and its quantized form (paper A, Figure 8)."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from coolbits.evaluation.objective import Objective, finite, inner, norm
from coolbits.study.recipes.evaluation import Landscape

GRID = "grid.parquet"


def measure_landscape(
    objective: Objective, previous: Tensor, quantized: Tensor, recipe: Landscape, out: Path
) -> dict[str, Any]:
    """Write the losses on the grid into `out`; return those of the three models, and how far apart they are.

    The checkpoint is the origin. x is the distance from it towards the weights `previous`, y that towards `quantized`
    (each [n]): the three models lie at (0, 0), (`previous_distance`, 0) and (0, `quantized_distance`), Euclidean
    distances in the space of weights. The axes are drawn at right angles; `cosine` says how nearly they are.
    """
    origin = objective.weights()
    back, down = previous - origin, quantized - origin
    distances = norm(back), norm(down)
    units = [each / (length or 1) for each, length in zip((back, down), distances, strict=True)]
    across, up = (axis(reach, recipe) for reach in recipe.extent or distances)
    with objective.at(origin):
        rows = [(x, y, _loss(objective, origin + x * units[0] + y * units[1])) for y in up for x in across]
        losses = [_loss(objective, weights) for weights in (origin, previous, quantized)]
    pd.DataFrame(rows, columns=["x", "y", "loss"], dtype="float64").to_parquet(out / GRID, index=False)
    names = ("loss", "previous_loss", "quantized_loss", "previous_distance", "quantized_distance", "cosine")
    values = (*losses, *distances, float(inner(units[0][None], units[1])))
    return finite(dict(zip(names, values, strict=True)))


def axis(reach: float, recipe: Landscape) -> NDArray[np.float64]:
    """Return the places along an axis, evenly spaced, a margin before 0 and one after `reach`."""
    return np.linspace(-recipe.margin * reach, (1 + recipe.margin) * reach, recipe.points)


def _loss(objective: Objective, weights: Tensor) -> float:
    objective.move(weights)
    return objective.loss()
