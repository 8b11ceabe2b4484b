"""AWQ (Lin et al. 2024, arXiv 2306.00978): scale inputs by what they carry, then clip weights, both by search.

An input that carries large activations is multiplied by a scale on the weight's side and divided by it on the
producer's: rounding then errs less where it counts. Scales are those of llm-compressor 0.14 (`AWQModifier`) and of
llm-awq (`auto_scale`), the clip that of llm-awq (`auto_clip`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from coolbits.ptq.grids import group_size_for
from coolbits.ptq.ledger import output_losses
from coolbits.ptq.pairs import Pair
from coolbits.ptq.rtn import round_to_nearest
from coolbits.ptq.search import Objective, Weighed, Weights, best_first, race
from coolbits.study.recipes.methods import AWQ, Grid

_SMALLEST = 1e-4  # of a scale before normalization, and what keeps its divisor from 0: both libraries


@dataclass(frozen=True)
class Scaling:
    """The scales of a pair's channels, and the exponent they come from; None: all are 1, which was best."""

    scales: torch.Tensor  # float32 [channels]
    exponent: float | None


def weight_shares(weight: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return each weight's magnitude as a share of the largest of its group, summed over outputs, float64 [inputs]."""
    outputs, inputs = weight.shape
    groups = weight.abs().reshape(outputs, -1, group_size_for(grid, inputs))
    shares = groups / (groups.amax(-1, keepdim=True) + 1e-6)
    return shares.reshape(outputs, inputs).sum(0, dtype=torch.float64)


def candidate_scales(pair: Pair, weights: Weights, magnitudes: Weights, recipe: AWQ) -> list[Scaling]:
    """Return `recipe.steps` scalings to choose from, the first of which scales nothing.

    With x the mean magnitude of an input and w the mean share of `weight_shares`, each averaged over the readers'
    inputs that are one channel, the scale of the exponent a is x**a / w**(1 - a), and x**a where weights do not
    count; then divided by sqrt(largest * smallest).

    Args:
        pair: whose channels are scaled.
        weights: of its readers, [outputs, inputs].
        magnitudes: the mean of |x| over tokens, of each reader's inputs, [inputs].
        recipe: decides exponents and grid.
    """
    used = pair.used
    activations = _over_channels(pair, {name: magnitudes[name] for name in pair.rows}, dict.fromkeys(pair.rows, 1))
    shares = {name: weight_shares(weights[name], recipe.grid) for name in pair.rows}
    shares_mean = _over_channels(pair, shares, {name: len(weights[name]) for name in pair.rows})

    def scaling(exponent: float) -> Scaling:
        raw = activations[used] ** exponent
        if recipe.weighted:
            raw = raw / (shares_mean[used] ** (1 - exponent) + _SMALLEST)
        raw = raw.clamp_min(_SMALLEST)
        raw = raw / (raw.max() * raw.min()).sqrt()
        scales = torch.ones(pair.producer.channels, device=raw.device)
        scales[used] = torch.where(raw.isfinite(), raw, 1).float()
        return Scaling(scales, exponent)

    # Unweighted, the exponent 0 is what scales nothing.
    exponents = torch.linspace(0, recipe.largest_exponent, recipe.steps - recipe.weighted, dtype=torch.float64)
    nothing = Scaling(torch.ones(pair.producer.channels, device=used.device), None)
    return [nothing, *map(scaling, exponents.tolist()[not recipe.weighted :])]


def _over_channels(pair: Pair, sums: Weights, counts: Mapping[str, int]) -> torch.Tensor:
    """Average what belongs to the readers' inputs over the inputs that are one channel, float64 [channels]."""
    total, count = torch.zeros(2, pair.producer.channels, dtype=torch.float64, device=pair.used.device)
    for name, rows in pair.rows.items():
        live = rows >= 0
        total += torch.bincount(rows[live], sums[name].double()[live], minlength=len(total))
        count += counts[name] * torch.bincount(rows[live], minlength=len(count))
    return total / count.clamp_min(1)


def search_scales(
    pair: Pair, weights: Weights, candidates: Sequence[Scaling], objective: Objective, recipe: AWQ
) -> Scaling | None:
    """Return the candidate of least loss when the readers' scaled weights are rounded; None if no loss is finite.

    `recipe` says how it is searched, and the grid.
    """

    def losses(index: int, units: torch.Tensor) -> torch.Tensor:
        return objective.losses(partial(_rounded, pair, weights, candidates[index], recipe.grid), units)

    search = race if recipe.search == "race" else best_first
    winner = search(losses, len(candidates), objective)
    return None if winner is None else candidates[winner]


def _rounded(
    pair: Pair, weights: Weights, scaling: Scaling, grid: Grid, outputs: torch.Tensor | slice
) -> dict[str, torch.Tensor]:
    columns = {name: pair.columns(name, scaling.scales) for name in pair.rows}
    return {name: round_to_nearest(weights[name][outputs] * own, grid).weight() / own for name, own in columns.items()}


def layer_error(name: str, weight: torch.Tensor, hessian: torch.Tensor) -> Objective:
    """Return the summed squared error of a layer's output over outputs, each a unit: the diagonal of dW H dW^T.

    With H = 2 * mean(x x^T) it is twice the mean over tokens.
    """
    narrow = hessian.to(weight.dtype)

    def losses(weighed: Weighed, units: torch.Tensor) -> torch.Tensor:
        outputs = units.to(weight.device)
        found = output_losses(weighed(outputs)[name] - weight[outputs], narrow)
        return found.clamp_min(0).cpu()[:, None]  # what is next to nothing may come out below it

    return Objective((torch.arange(len(weight)),), losses, drawn=True)


def clipped(weight: torch.Tensor, hessian: torch.Tensor, recipe: AWQ) -> torch.Tensor:
    """Return a weight [outputs, inputs] with each group cut to the range with which its rounding errs least.

    Its error is that of the group's share of the layer's output: e H e^T with the group's block of the Hessian
    [inputs, inputs], that is over all tokens, where llm-awq takes 512. A tie goes to the wider range.
    """
    outputs, inputs = weight.shape
    size = group_size_for(recipe.grid, inputs)
    groups = weight.reshape(outputs, -1, size).transpose(0, 1)  # [groups, outputs, group]
    diagonal = hessian.reshape(inputs // size, size, inputs // size, size).diagonal(dim1=0, dim2=2)
    blocks = diagonal.permute(2, 0, 1).to(weight.dtype)  # [groups, group, group]
    widest = groups.abs().amax(-1, keepdim=True)
    best, least = groups, torch.full_like(widest, torch.inf)
    for share in clip_shares(recipe):
        cut = groups.clamp(-share * widest, share * widest)
        rounded = round_to_nearest(cut.transpose(0, 1).reshape(outputs, inputs), recipe.grid).weight()
        error = rounded.reshape(outputs, -1, size).transpose(0, 1) - groups
        loss = ((error @ blocks) * error).sum(-1, keepdim=True)
        best, least = torch.where(loss < least, cut, best), torch.minimum(loss, least)
    return best.transpose(0, 1).reshape(outputs, inputs)


def clip_shares(recipe: AWQ) -> list[float]:
    """Return the shares of the whole range that are tried, the whole one first."""
    shares = (1 - step / recipe.clip_steps for step in range(recipe.clip_steps))
    return [share for share in shares if share > recipe.smallest_clip - 1e-9]
