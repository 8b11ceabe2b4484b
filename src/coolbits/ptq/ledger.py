"""The ledger: for each module what really ran and how well, so that no fallback hides in a mean."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd
import torch

from coolbits.artifacts.manifest import SECONDS
from coolbits.models.layers import Layer, PackedLayer
from coolbits.products import matmul

LEDGER = "ledger.parquet"
_STRIP = 192  # columns of a product: of six sizes the fastest, with MKL and oneDNN, one thread and two
_LEAST, _MOST = 1e-15, 1e15  # norms between them come of float32 squares that neither vanish nor overflow


@dataclass(frozen=True)
class Entry:
    """One module's line. Fields of a method that did not run are None.

    `method` is what ran, `requested` what the recipe asked for, `reason` why they differ. `damping` is the share of
    the mean diagonal that the last of `attempts` factorizations added, `condition` the largest over the smallest
    eigenvalue of the damped Hessian, by estimate. A proxy loss is tr(dW H dW^T) with the
    undamped H = 2 * mean(x x^T): twice the mean squared error of the layer's output, summed over outputs. Of AWQ:
    the `producer` that the layer's scales divide, and the `exponent` they come from, None if scaling nothing is best.
    """

    requested: str
    method: str
    reason: str | None
    bits: int
    group_size: int
    order: str | None
    damping: float | None
    attempts: int | None
    condition: float | None
    dead_columns: int | None
    proxy_loss: float | None
    rtn_proxy_loss: float | None
    relative_error: float
    producer: str | None = None
    exponent: float | None = None

    @property
    def fell_back(self) -> bool:
        """Whether another method ran than the recipe asked for."""
        return self.method != self.requested


@dataclass(frozen=True)
class Result:
    """A quantized layer, its line in the ledger, and the seconds it took (of this run alone)."""

    held: Layer | PackedLayer
    entry: Entry
    seconds: float

    @property
    def layer(self) -> Layer:
        """The layer, unpacked at each access if it is held packed."""
        return self.held.layer() if isinstance(self.held, PackedLayer) else self.held

    @property
    def packing(self) -> PackedLayer:
        """The layer as it is stored."""
        return self.held if isinstance(self.held, PackedLayer) else PackedLayer.of(self.held)

    def layer_on(self, device: torch.device) -> Layer:
        """Return the layer on `device`: its weight has the bits there that it had if it was made there."""
        parts = {name: part.to(device) for name, part in self.packing.parts.items()}
        with device:
            return replace(self.packing, parts=parts).layer()

    def packed(self) -> Self:
        """Return the same with the layer packed: so a finished one waits for the rest of the model."""
        return replace(self, held=self.packing)


def output_loss(error: torch.Tensor, hessian: torch.Tensor) -> float:
    """Return tr(E H E^T) for an error [outputs, inputs] of the weights and a symmetric H.

    With H = 2 * mean(x x^T) it is the proxy loss (GPTQ, Frantar et al. 2023, equation 1). Products are made in the
    precision of `error`, their sums in float64: of a float32 error it is right to some 1e-8, and at worst, where the
    errors of GPTQ cancel, to 5e-6 (measured on SmolLM2-135M).
    """
    return float(output_losses(error, hessian).sum())


def output_losses(error: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Return what each output adds to `output_loss`, the diagonal of E H E^T: float64 [outputs]."""
    hessian = hessian.to(error.dtype)
    total = torch.zeros(len(error), dtype=torch.float64, device=error.device)
    for start in range(0, len(hessian), _STRIP):  # what lies above the diagonal of H adds what lies below once more
        strip, stop = slice(start, start + _STRIP), start + _STRIP
        products = matmul(error[:, stop:], hessian[stop:, strip]).mul_(2)  # [outputs, strip]
        products.add_(matmul(error[:, strip], hessian[strip, strip])).mul_(error[:, strip])
        total += products.sum(1, dtype=torch.float64)
    return total


def relative_error(weight: torch.Tensor, layer: Layer) -> float:
    """Return ||W - quantized||_F / ||W||_F, and 0 for a weight of zeros."""
    return relative_norm(weight - layer.weight(), weight)


def relative_norm(error: torch.Tensor, weight: torch.Tensor) -> float:
    """Return ||error||_F / ||weight||_F, and 0 for a weight of zeros."""
    norm = _norm(weight)
    return _norm(error) / norm if norm else 0.0


def _norm(matrix: torch.Tensor) -> float:
    """Return the Frobenius norm; rows are summed in their own precision, what they give in float64.

    Where squares come near the ends of float32, rows are summed in float64, too.
    """
    norm = float(torch.linalg.vector_norm(torch.linalg.vector_norm(matrix, dim=1), dtype=torch.float64))
    return norm if _LEAST < norm < _MOST else float(torch.linalg.vector_norm(matrix, dtype=torch.float64))


def write_ledger(results: Mapping[str, Result], out: Path) -> None:
    """Write `ledger.parquet` into `out`, and the seconds apart: one row a module, in the order of `results`."""
    rows = [{"module": module, **asdict(result.entry)} for module, result in results.items()]
    text = dict.fromkeys(("module", "requested", "method", "reason", "order", "producer"), "string")
    whole = dict.fromkeys(("bits", "group_size", "attempts", "dead_columns"), "Int64")
    numbers = ("damping", "condition", "proxy_loss", "rtn_proxy_loss", "relative_error", "exponent")
    real = dict.fromkeys(numbers, "Float64")
    pd.DataFrame(rows).astype(text | whole | real).to_parquet(out / LEDGER, index=False)
    seconds = {"module": list(results), "seconds": [result.seconds for result in results.values()]}
    pd.DataFrame(seconds).to_parquet(out / SECONDS, index=False)
