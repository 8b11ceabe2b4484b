"""AWQ (Lin et al. 2024, arXiv 2306.00978): scale inputs by what they carry, then clip weights, both by search.

An input that carries large activations is multiplied by a scale on the weight's side and divided by it on the
producer's: rounding then errs less where it counts. Scales are those of llm-compressor 0.14 (`AWQModifier`) and of
llm-awq (`auto_scale`), the clip that of llm-awq (`auto_clip`).

A search for scales compares losses that are sums over units: tokens, sequences or calls. Both libraries compute each
candidate's whole sum; a race (Maron and Moore 1994) drops a candidate as soon as few units show that it is worse.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import isfinite

import torch

from coolbits.ptq.grids import group_size_for
from coolbits.ptq.pairs import Pair
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.ptq import AWQ, Grid

Weights = Mapping[str, torch.Tensor]
Losses = Callable[[int, torch.Tensor], torch.Tensor]  # of a candidate, on some units: float [units, pieces]

_SMALLEST = 1e-4  # of a scale before normalization, and what keeps its divisor from 0: both libraries


@dataclass(frozen=True)
class Scaling:
    """The scales of a pair's channels, and the exponent they come from; None: all are 1, which was best."""

    scales: torch.Tensor  # float32 [channels]
    exponent: float | None


@dataclass(frozen=True)
class Objective:
    """A loss of the readers' weights as a sum over units, none negative, that can be computed apart.

    `losses(weights, units)` are those of some units, float [units, pieces]. `parts` are all the units, in the portions
    in which they are best computed. With `drawn` units are many and their losses of unequal size, so that a sample of
    them is drawn by size; otherwise they are few, each of many pieces that are not independent.
    """

    parts: tuple[torch.Tensor, ...]  # int64 [units of the part]
    losses: Callable[[Weights, torch.Tensor], torch.Tensor]
    drawn: bool

    @property
    def units(self) -> int:
        """The number of units in all."""
        return sum(map(len, self.parts))


@dataclass(frozen=True)
class Sample:
    """Units in the order in which they are drawn by size: the first so many are a sample of the others' sums, too.

    It is a priority sample (Duffield, Lund and Thorup 2007, "Priority sampling for estimation of arbitrary subset
    sums"): with a unit's weight w a difference d sums to sum(w d), without bias, and to sum(w (w - 1) d^2) in variance.
    Large units have the weight 1, being in every sample. The lots are spread evenly and always the same.
    """

    order: torch.Tensor  # int64 [units]
    sizes: torch.Tensor  # float64 [units], in that order, as are
    priorities: torch.Tensor  # float64 [units]

    @classmethod
    def of(cls, losses: torch.Tensor) -> "Sample":
        """Return units of the sizes that these losses tell, float64 [units], none negative, in the order of drawing."""
        sizes = losses + (float(losses.mean()) / 10 or 1.0)  # what costs one candidate nothing may cost another some
        lots = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(0)).double().add(0.5) / len(sizes)
        priorities, order = (sizes / lots).sort(descending=True, stable=True)
        return cls(order, sizes[order], priorities)

    def weights(self, size: int) -> torch.Tensor:
        """Return how many units each of the first `size` stands for, float64 [size]."""
        if size == len(self.order):
            return torch.ones_like(self.sizes)
        return (self.priorities[size] / self.sizes[:size]).clamp_min(1)


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
        return objective.losses(_rounded(pair, weights, candidates[index], recipe.grid), units)

    search = race if recipe.search == "race" else best_first
    winner = search(losses, len(candidates), objective)
    return None if winner is None else candidates[winner]


def best_first(losses: Losses, candidates: int, objective: Objective) -> int | None:
    """Return the candidate of least loss; None if no loss is finite.

    The candidate of least loss so far is the next to be charged its next part, until one has been charged all. No part
    being negative, no other can end below it, and most were never charged all. The earliest wins a tie.
    """
    heap = [(0.0, index, 0) for index in range(candidates)]
    while heap:
        loss, index, charged = heappop(heap)
        if charged == len(objective.parts):
            return index
        loss += float(losses(index, objective.parts[charged]).sum(dtype=torch.float64))
        if isfinite(loss):
            heappush(heap, (loss, index, charged + 1))
    return None


def race(losses: Losses, candidates: int, objective: Objective) -> int | None:
    """Return the candidate of least loss, found on a growing sample of the units; None if no loss is finite.

    A race (Maron and Moore 1994, "Hoeffding Races"), by standard errors: all candidates are charged the same units, at
    first a sixteenth and then twice as many every time. One drops out when its loss exceeds the leader's by more than 6
    standard errors of the sample's paired differences; 7 where units are not `drawn`, whose pieces are not independent.
    Of those that are charged everything the least loss wins, the earliest of equals.

    Losses of tokens differ by orders of magnitude: a plain sample that lacks the few large ones misleads. So a
    candidate in the middle, the pilot, is charged everything first, and by what it loses the others' units are drawn:
    `Sample`. Where the winner loses much on tokens on which the pilot does not, few of them may have been drawn: it is
    charged everything, too, and if it loses more than the pilot all candidates are searched best first.
    """
    if not objective.drawn:
        return _race(losses, candidates, Sample.of(torch.ones(objective.units, dtype=torch.float64)), {}, 2, 7)
    pilot = _pilot(losses, candidates, objective.units)
    if pilot is None:
        return None
    index, charged = pilot
    sample = Sample.of(charged.sum(1))
    known = {index: charged[sample.order]}
    winner = _race(losses, candidates, sample, known, 32, 6)
    if winner is None or winner == index:
        return winner
    rest = losses(winner, sample.order[len(known[winner]) :]).double()
    better = float(known[winner].sum() + rest.sum()) <= float(charged.sum())
    return winner if better else best_first(losses, candidates, objective)


def _race(
    losses: Losses, candidates: int, sample: Sample, known: dict[int, torch.Tensor], least: int, errors: float
) -> int | None:
    """Return who wins a race over `least` units or more; to `known` losses, in the sample's order, others are added."""
    units = len(sample.order)
    alive, size = list(range(candidates)), max(least, -(-units // 16))
    while True:
        size = min(size, units)
        for index in alive:
            had = len(known[index]) if index in known else 0
            if had < size:
                charged = losses(index, sample.order[had:size]).double()
                known[index] = torch.cat([known[index], charged]) if had else charged
        alive = [index for index in alive if known[index][:size].isfinite().all()]
        if not alive:
            return None
        table, weights = torch.stack([known[index][:size] for index in alive]), sample.weights(size)[:, None]
        totals = (table * weights).sum((1, 2)).tolist()
        leader = totals.index(min(totals))
        if size == units:
            return alive[leader]
        differences = table - table[leader]  # float64 [alive, size, pieces]
        excess = (differences * weights).sum((1, 2))
        deviation = (differences.square() * weights * (weights - 1)).sum((1, 2)).sqrt()
        alive = [index for index, worse in zip(alive, excess > errors * deviation, strict=True) if not worse]
        if len(alive) == 1:
            return alive[0]
        size *= 2


def _pilot(losses: Losses, candidates: int, units: int) -> tuple[int, torch.Tensor] | None:
    """Return the candidate nearest to the middle of those with finite losses, and these; None if there is none."""
    for index in sorted(range(candidates), key=lambda index: abs(index - candidates // 2)):
        charged = losses(index, torch.arange(units)).double()
        if charged.isfinite().all():
            return index, charged
    return None


def _rounded(pair: Pair, weights: Weights, scaling: Scaling, grid: Grid) -> dict[str, torch.Tensor]:
    columns = {name: pair.columns(name, scaling.scales) for name in pair.rows}
    return {name: round_to_nearest(weights[name] * own, grid).weight() / own for name, own in columns.items()}


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
