"""The ledger: for each module what really ran and how well, so that no fallback hides in a mean."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from coolbits.models.quantized import QuantizedLayer

LEDGER = "ledger.parquet"


@dataclass(frozen=True)
class Entry:
    """One module's line. Fields of a method that did not run are None.

    `method` is what ran, `requested` what the recipe asked for, `reason` why they differ. `damping` is the share of
    the mean diagonal that the last of `attempts` factorizations added. A proxy loss is tr(dW H dW^T) with the
    undamped H = 2 * mean(x x^T): twice the mean squared error of the layer's output, summed over outputs.
    """

    requested: str
    method: str
    reason: str | None
    bits: int
    group_size: int
    order: str | None
    damping: float | None
    attempts: int | None
    dead_columns: int | None
    proxy_loss: float | None
    rtn_proxy_loss: float | None
    relative_error: float

    @property
    def fell_back(self) -> bool:
        """Whether another method ran than the recipe asked for."""
        return self.method != self.requested


@dataclass(frozen=True)
class Result:
    """A quantized layer and its line in the ledger."""

    layer: QuantizedLayer
    entry: Entry


def proxy_loss(weight: torch.Tensor, layer: QuantizedLayer, hessian: torch.Tensor) -> float:
    """Return tr(dW H dW^T) for dW = weight - quantized, in float64 (GPTQ, Frantar et al. 2023, equation 1)."""
    error = weight.to(torch.float64) - layer.weight().to(torch.float64)
    return float(((error @ hessian.to(torch.float64)) * error).sum())


def relative_error(weight: torch.Tensor, layer: QuantizedLayer) -> float:
    """Return ||W - quantized||_F / ||W||_F, and 0 for a weight of zeros."""
    norm = float(torch.linalg.vector_norm(weight, dtype=torch.float64))
    return float(torch.linalg.vector_norm(weight - layer.weight(), dtype=torch.float64)) / norm if norm else 0.0


def write_ledger(results: Mapping[str, Result], out: Path) -> None:
    """Write `ledger.parquet` into `out`: one row a module, in the order of `results`."""
    rows = [{"module": module, **asdict(result.entry)} for module, result in results.items()]
    text = dict.fromkeys(("module", "requested", "method", "reason", "order"), "string")
    whole = dict.fromkeys(("bits", "group_size", "attempts", "dead_columns"), "Int64")
    real = dict.fromkeys(("damping", "proxy_loss", "rtn_proxy_loss", "relative_error"), "Float64")
    pd.DataFrame(rows).astype(text | whole | real).to_parquet(out / LEDGER, index=False)
