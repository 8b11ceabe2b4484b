"""The search for the candidate of least loss, where losses are sums over units: tokens, sequences, calls or outputs.

AWQ's libraries compute each candidate's whole sum; a race (Maron and Moore 1994) drops a candidate as soon as few units
show that it is worse.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import isfinite

import torch

Weights = Mapping[str, torch.Tensor]
ALL = slice(None)
Weighed = Callable[[torch.Tensor | slice], Weights]  # a candidate's weights: some of the outputs of each reader
Losses = Callable[[int, torch.Tensor], torch.Tensor]  # of a candidate, on some units: float [units, pieces]


@dataclass(frozen=True)
class Objective:
    """A loss of the readers' weights as a sum over units, none negative, that can be computed apart.

    `losses(weighed, units)` are those of some units, float [units, pieces]. `parts` are all the units, in the portions
    in which they are best computed. With `drawn` units are many and their losses of unequal size, so that a sample of
    them is drawn by size; otherwise they are few, each of many pieces that are not independent.
    """

    parts: tuple[torch.Tensor, ...]  # int64 [units of the part]
    losses: Callable[[Weighed, torch.Tensor], torch.Tensor]
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
