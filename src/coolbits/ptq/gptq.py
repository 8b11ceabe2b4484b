"""GPTQ (Frantar et al. 2023, arXiv 2210.17323): quantize input by input, spread each error over the inputs to come.

Rows of a weight do not interact, so everything that shares a Hessian goes through one sweep as more rows: the same
module at several bit widths, and modules that read the same input.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import torch

from coolbits.models.layers import IntegerLayer, neighbouring_groups
from coolbits.ptq.grids import find_scales, group_size_for
from coolbits.ptq.hessian import Factor, factorize
from coolbits.ptq.hooks import full_precision
from coolbits.ptq.ledger import Entry, Result, output_loss, relative_norm
from coolbits.ptq.rtn import round_to_nearest
from coolbits.ptq.sweep import Groups, sweep
from coolbits.study.recipes.methods import GPTQ

Task = tuple[torch.Tensor, GPTQ]


def gptq(weight: torch.Tensor, hessian: torch.Tensor, recipe: GPTQ) -> Result:
    """Quantize a weight [outputs, inputs] under a Hessian [inputs, inputs]: see `gptq_together`."""
    return gptq_together([(weight, recipe)], hessian)[0]


@torch.inference_mode()
def gptq_together(tasks: Sequence[Task], hessian: torch.Tensor) -> list[Result]:
    """Quantize finite weights [outputs, inputs] that share the Hessian 2 * mean(x x^T), each by its recipe.

    Recipes that differ in bits alone run as one sweep. Where the Hessian cannot be factorized, the layer is rounded
    to nearest and its entry says so. Weights of dead inputs become 0, as in GPTQ's own code. The weights carry their
    errors in the Hessian's precision: in float64 neither block nor batch decides which way one of them is rounded.

    Raises:
        CoolbitsError: if a group size does not divide the inputs.
    """
    results: dict[int, Result] = {}
    factor, made_for = None, None
    with full_precision(hessian.device):
        for members in _alike(tasks):
            clock = monotonic()
            together = [tasks[index] for index in members]
            needed = _factor_settings(together[0][1])
            if factor is None or needed != made_for:
                factor, made_for = factorize(hessian, together[0][1]), needed
            layers: Sequence[IntegerLayer | None] = [None] * len(members)
            if factor.spread is not None:
                layers = _quantize_rows(together, factor, factor.spread)
            judge = hessian.to(together[0][0].dtype)  # once for all losses, which are made in the weights' precision
            for index, layer in zip(members, layers, strict=True):
                results[index] = _result(*tasks[index], judge, factor, layer)
            share = (monotonic() - clock) / len(members)
            results |= {index: replace(results[index], seconds=share) for index in members}
    return [results[index] for index in range(len(tasks))]


def _alike(tasks: Sequence[Task]) -> list[list[int]]:
    """Group tasks whose recipes differ in bits alone."""
    groups: dict[str, list[int]] = {}
    for index, (_, recipe) in enumerate(tasks):
        key = recipe.model_copy(update={"grid": recipe.grid.model_copy(update={"bits": 8})})
        groups.setdefault(key.model_dump_json(), []).append(index)
    return list(groups.values())


def _factor_settings(recipe: GPTQ) -> tuple[object, ...]:
    """Return what a factor depends on: recipes that differ in the size of groups alone mostly share one."""
    group_size = recipe.grid.group_size if recipe.order == "group-aware" else None
    damping = recipe.damping, recipe.damping_step, recipe.damping_attempts, recipe.damping_accumulates
    return recipe.order, group_size, *damping


def _result(
    weight: torch.Tensor, recipe: GPTQ, hessian: torch.Tensor, factor: Factor, layer: IntegerLayer | None
) -> Result:
    nearest = round_to_nearest(weight, recipe.grid)
    chosen = layer or nearest
    error = weight - chosen.weight()
    entry = Entry(
        requested="gptq",
        method="gptq" if layer else "rtn",
        reason=factor.reason,
        bits=recipe.grid.bits,
        group_size=chosen.group_size,
        order=recipe.order if layer else None,
        damping=factor.damping,
        attempts=factor.attempts,
        condition=factor.condition,
        dead_columns=int(factor.dead.sum()),
        proxy_loss=output_loss(error, hessian) if factor.finite else None,
        rtn_proxy_loss=output_loss(weight - nearest.weight(), hessian) if factor.finite else None,
        relative_error=relative_norm(error, weight),
    )
    return Result(chosen, entry, seconds=0.0)


def _quantize_rows(tasks: Sequence[Task], factor: Factor, spread: torch.Tensor) -> list[IntegerLayer]:
    """Run one sweep over the rows of all `tasks` and cut its result into layers."""
    recipe, order = tasks[0][1], factor.order
    grid, inputs = recipe.grid, len(order)
    size = group_size_for(grid, inputs)
    columns = torch.cat([weight for weight, _ in tasks]).T.contiguous()  # [inputs, rows]
    columns[factor.dead] = 0
    rows = [len(weight) for weight, _ in tasks]
    highest = torch.tensor([float(own.grid.top) for _, own in tasks], device=order.device)
    tops = highest.repeat_interleave(torch.tensor(rows, device=order.device), output_size=sum(rows))  # [rows]
    index = neighbouring_groups(inputs, size).to(order.device)
    if recipe.static_groups:
        neighbours = columns.reshape(inputs // size, size, -1).mT  # [groups, rows, group]
        known, members = Groups(*find_scales(neighbours, tops, grid.symmetric, grid.search)), index[order]
    else:
        known, members = None, index
        index = _restored(members, order)
    columns = columns[order].to(spread.dtype)  # no other name keeps the copy in the inputs' own order
    swept, groups = sweep(columns, spread, tops, members, known, recipe)
    if recipe.order == "group-aware" and known is None:
        # Whole groups were visited in another order: give each its place back, and members lie as they did.
        visited = order[::size] // size
        groups, index = Groups(*(_restored(part, visited) for part in groups)), members
    codes = _restored(swept, order)
    cuts = (part.T.contiguous().split(rows) for part in (codes, groups.scales, groups.zeros.to(torch.uint8)))
    return [
        IntegerLayer(own.grid.bits, own.grid.symmetric, own_codes, own_scales, own_zeros, index)
        for (_, own), own_codes, own_scales, own_zeros in zip(tasks, *cuts, strict=True)
    ]


def _restored(rows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Return `rows`, which lie in `order`, as they lay before."""
    return torch.empty_like(rows).index_copy_(0, order, rows)
