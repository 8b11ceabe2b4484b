"""Paper B's theorems in numbers: a long table over random states and those of checkpoints."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from coolbits.analysis.checkpoints import Stored, checkpoint_states
from coolbits.analysis.polar import Polar, arithmetic_error, muon_stored, spectrum
from coolbits.analysis.rounding import round_trip, rounding_values
from coolbits.analysis.rows import Origin, Row, describe, table
from coolbits.analysis.samples import draw
from coolbits.analysis.updates import adam_next, adam_stored, momentum_next, muon_next, sgd_stored
from coolbits.artifacts.manifest import read_manifest
from coolbits.optim.codecs import Blockwise
from coolbits.study.recipes.analysis import Distribution, Theory
from coolbits.study.recipes.results import TABLE
from coolbits.study.recipes.training import SGD, Checkpoint, Muon

_KINDS: tuple[Literal["linear"], Literal["dynamic"]] = ("linear", "dynamic")


def build_theory(recipe: Theory, checkpoints: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Write the table of all checks to `out`; return how many bounds were checked and how many held.

    `checkpoints` are the directories of the recipe's sources, by role. One that diverged has no states and is named in
    the summary.
    """
    rows, diverged = list(random_rows(recipe)), []
    for source in recipe.sources:
        manifest = read_manifest(checkpoints[source.role])
        if manifest.diverged:
            diverged.append(source.trajectory)
            continue
        checkpoint = Checkpoint.read(manifest.recipe)
        for stored in checkpoint_states(checkpoints[source.role], checkpoint, source, recipe.tensors):
            rows += stored_rows(stored, checkpoint, recipe)
    found = table(rows)
    found.to_parquet(out / TABLE, index=False)
    return {"bounds": int(found.holds.notna().sum()), "held": int(found.holds.sum()), "diverged": diverged}


def random_rows(recipe: Theory) -> Iterator[Row]:
    """Yield the rows of random states.

    At step 1 a matrix is the momentum, or AdamW's only gradient so far. At step 2 a second one is the next gradient,
    sqrt(1 - momentum²) as large beside a momentum: the size at which the momentum stays as large as it is.
    """
    for distribution in recipe.distributions:
        for seed in range(recipe.seeds):
            yield from _random(distribution, seed, recipe)


def _random(distribution: Distribution, seed: int, recipe: Theory) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(seed)
    state, other = (draw(distribution, (recipe.rows, recipe.columns), generator) for _ in range(2))
    gradient = math.sqrt(1 - recipe.momentum**2) * other
    once, twice = Origin(distribution, seed, 1), Origin(distribution, seed, 2)
    yield from _momentum_rows(once, state, recipe, polar=True, plain=True)
    yield from _adam_rows(once, state, state.square(), recipe.eps, recipe.adam_block_sizes)
    for kind in _KINDS:
        codec = Blockwise(kind, True, recipe.block_size)
        codecs = codec, Blockwise(kind, False, recipe.block_size)
        rounded, steps = round_trip(state, codec), recipe.newton_schulz_steps[0]
        yield from describe("sgd", twice, state.shape, momentum_next(rounded, gradient, recipe.momentum), codec)
        yield from describe("muon", twice, state.shape, muon_next(rounded, gradient, recipe.momentum, steps), codec)
        yield from describe("adam", twice, state.shape, adam_next((state, other), codecs, recipe), codecs[1])


def stored_rows(stored: Stored, checkpoint: Checkpoint, recipe: Theory) -> Iterator[Row]:
    """Yield the rows of one matrix of a checkpoint; none if it has had no gradient but zero."""
    optimizer, states = checkpoint.trajectory.optimizer, stored.states
    if not all(state.any() for state in states.values()):
        return
    if "momentum" in states:
        kinds = {"polar": isinstance(optimizer, Muon), "plain": isinstance(optimizer, SGD)}
        yield from _momentum_rows(stored.origin, states["momentum"], recipe, **kinds, rounded=stored.rounded)
    elif not stored.rounded and not isinstance(optimizer, SGD):
        first, second = (
            states[name] / (1 - beta**checkpoint.step)
            for name, beta in (("exp_avg", optimizer.beta1), ("exp_avg_sq", optimizer.beta2))
        )
        yield from _adam_rows(stored.origin, first, second, optimizer.eps, (recipe.block_size,))
        yield from _momentum_rows(stored.origin, states["exp_avg"], recipe)


def _momentum_rows(
    origin: Origin,
    momentum: Tensor,
    recipe: Theory,
    *,
    polar: bool = False,
    plain: bool = False,
    rounded: bool = False,
) -> Iterator[Row]:
    """Yield what rounding a momentum does to it, to SGD's update (`plain`) and to Muon's (`polar`).

    One that was stored in 8 bits, `rounded`, lies on its grid: rounding it again says nothing, its spectrum does.
    """
    shape, steps = momentum.shape, recipe.newton_schulz_steps
    exact = Polar.of(momentum) if polar else None
    if exact is not None:
        yield from describe("muon", origin, shape, spectrum(exact))
        yield from describe("muon", origin, shape, [arithmetic_error(exact.momentum, steps[0])])
    for kind in () if rounded else _KINDS:
        codec = Blockwise(kind, True, recipe.block_size)
        trip = round_trip(momentum, codec)
        yield from describe("rounding", origin, shape, rounding_values(trip), codec)
        if plain:
            yield from describe("sgd", origin, shape, sgd_stored(trip), codec)
        if exact is not None:
            yield from describe("muon", origin, shape, muon_stored(exact, trip.stored, steps), codec)


def _adam_rows(origin: Origin, first: Tensor, second: Tensor, eps: float, blocks: Sequence[int]) -> Iterator[Row]:
    """Yield what rounding the second moment does; paper B's linear codes are signed, those of coolbits are not."""
    for block in blocks:
        for codec in (
            Blockwise("linear", True, block),
            Blockwise("linear", False, block),
            Blockwise("dynamic", False, block),
        ):
            yield from describe("adam", origin, first.shape, adam_stored(first, second, codec, eps), codec)
