"""What storing an optimizer state does to it: pure functions of a state before and after it is stored.

They are what the reviewers of "Effective Quantization of Muon Optimizer States" (arXiv 2509.23106) asked to see in real
runs. Everything is float32, norms are summed up and singular values found in float64.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from coolbits.optim.codecs import Blockwise
from coolbits.optim.newton_schulz import orthogonalize

Kind = Literal["linear", "dynamic"]
Codec = Literal["float32"] | Kind

_KINDS: tuple[Kind, ...] = ("linear", "dynamic")
# Each of the first three is measured for the state as it is stored, and as either kind of codes would store it.
MEASURES = (
    *(
        f"{name}{suffix}"
        for name in ("zero_share", "rounding_error", "newton_schulz_error")
        for suffix in ("", "_linear", "_dynamic")
    ),
    *("shadow_error", "norm", "block_min", "block_median", "block_max"),
    *("sigma_max", "sigma_min", "condition", "stable_rank"),
)


@dataclass(frozen=True)
class Observed:
    """One state of one parameter after an update, each tensor float32 and of the parameter's shape.

    `exact` is what the update came to, `stored` what the next update will read, `shadow` a state that saw the same
    gradients and was never rounded. A float32 state is all three. `signed` is false for second moments; `block_size`
    is also that of the codes which a float32 state does not have.
    """

    exact: Tensor
    stored: Tensor
    shadow: Tensor
    codec: Codec
    signed: bool
    block_size: int


def measure(state: Observed, newton_schulz_steps: int | None = None) -> dict[str, float]:
    """Return the measures of a state by the names of `MEASURES`; those of the spectrum only for a matrix' momentum.

    - `zero_share`: of the entries that are not 0 in the shadow, the share that is stored as 0
    - `rounding_error`: ||Q(M) - M|| / ||M||, of this update alone
    - `newton_schulz_error`: ||NS(Q(M)) - NS(M)|| / ||NS(M)||, the iteration run in float32 so that only the rounding
      of the state is seen; these three for the state as stored, and with `_linear` and `_dynamic` for what either kind
      of codes would make of M, in which what was lost before is lost already
    - `shadow_error`: ||stored - shadow|| / ||shadow||, of all updates so far
    - `norm`: ||M||
    - `block_min`, `block_median`, `block_max`: of the largest magnitudes of the blocks, M's scales
    - `sigma_max`, `sigma_min`, `condition`, `stable_rank`: M's extreme singular values, their ratio, and
      ||M||_F² / ||M||_2²

    Norms are Frobenius norms. A share or an error of nothing but zeros is NaN.
    """
    read = {kind: _read_back(state, kind) for kind in _KINDS}
    losses = {
        "zero_share": {kind: _zero_share(tensor, state.shadow) for kind, tensor in read.items()},
        "rounding_error": {kind: relative_error(tensor, state.exact) for kind, tensor in read.items()},
    }
    if newton_schulz_steps is not None:
        losses["newton_schulz_error"] = _newton_schulz_errors(state.exact, read, newton_schulz_steps)
    measures = {"shadow_error": relative_error(state.stored, state.shadow), "norm": _norm(state.exact)}
    measures |= _block_maxima(state)
    for name, by_kind in losses.items():
        measures |= {f"{name}_{kind}": value for kind, value in by_kind.items()}
        measures[name] = 0.0 if state.codec == "float32" else by_kind[state.codec]
    return measures if newton_schulz_steps is None else measures | _spectrum(state.exact)


def relative_error(approximate: Tensor, exact: Tensor) -> float:
    """Return ||approximate - exact||_F / ||exact||_F; NaN if both are zero."""
    difference, norm = (torch.linalg.vector_norm(x, dtype=torch.float64) for x in (approximate - exact, exact))
    return float(difference / norm)


def _norm(state: Tensor) -> float:
    return float(torch.linalg.vector_norm(state, dtype=torch.float64))


def _read_back(state: Observed, kind: Kind) -> Tensor:
    """Return what codes of a kind leave of the state; its own codes have done so already."""
    if kind == state.codec:
        return state.stored
    codec = Blockwise(kind, state.signed, state.block_size)
    return codec.decode(codec.round(state.exact))


def _zero_share(read: Tensor, shadow: Tensor) -> float:
    alive = shadow != 0
    return float(torch.count_nonzero(alive & (read == 0)) / torch.count_nonzero(alive))


def _newton_schulz_errors(exact: Tensor, read: dict[Kind, Tensor], steps: int) -> dict[Kind, float]:
    direction, *rounded = orthogonalize(torch.stack([exact, *read.values()]), steps, torch.float32)
    return {kind: relative_error(tensor, direction) for kind, tensor in zip(read, rounded, strict=True)}


def _block_maxima(state: Observed) -> dict[str, float]:
    flat = state.exact.abs().flatten()
    maxima = pad(flat, (0, -flat.numel() % state.block_size)).view(-1, state.block_size).amax(1)  # [blocks]
    return {f"block_{name}": float(getattr(maxima, name)()) for name in ("min", "median", "max")}


def _spectrum(matrix: Tensor) -> dict[str, float]:
    singular = torch.linalg.svdvals(matrix.double())  # [min(rows, columns)], falling
    largest, smallest = singular[0], singular[-1]
    stable_rank = singular.square().sum() / largest.square()
    values = {"sigma_max": largest, "sigma_min": smallest, "condition": largest / smallest, "stable_rank": stable_rank}
    return {name: float(value) for name, value in values.items()}
