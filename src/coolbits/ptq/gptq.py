"""GPTQ (Frantar et al. 2023, arXiv 2210.17323): quantize input by input, spread each error over the inputs to come.

Rows of a weight do not interact, so everything that shares a Hessian goes through one sweep as more rows: the same
module at several bit widths, and modules that read the same input.
"""

from collections.abc import Iterator, Sequence

import torch

from coolbits.models.quantized import QuantizedLayer, neighbouring_groups
from coolbits.ptq.grids import find_scales, group_size_for
from coolbits.ptq.hessian import Factor, factorize
from coolbits.ptq.ledger import Entry, Result, proxy_loss, relative_error
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.ptq import GPTQ

Task = tuple[torch.Tensor, GPTQ]


def gptq(weight: torch.Tensor, hessian: torch.Tensor, recipe: GPTQ) -> Result:
    """Quantize a weight [outputs, inputs] under a Hessian [inputs, inputs] (float64): see `gptq_together`."""
    return gptq_together([(weight, recipe)], hessian)[0]


@torch.inference_mode()
def gptq_together(tasks: Sequence[Task], hessian: torch.Tensor) -> list[Result]:
    """Quantize weights [outputs, inputs] that share the Hessian 2 * mean(x x^T), each by its recipe.

    Recipes that differ in bits alone run as one sweep. Where the Hessian cannot be factorized, the layer is rounded
    to nearest and its entry says so. The sweep runs in the weights' dtype, the factorization in float64.

    Raises:
        CoolbitsError: if a group size does not divide the inputs.
    """
    results: dict[int, Result] = {}
    for members in _alike(tasks):
        together = [tasks[index] for index in members]
        factor = factorize(hessian, together[0][1])
        layers = _sweep_layers(together, factor) if factor.spread is not None else [None] * len(together)
        for index, layer in zip(members, layers, strict=True):
            results[index] = _result(*tasks[index], hessian, factor, layer)
    return [results[index] for index in range(len(tasks))]


def _alike(tasks: Sequence[Task]) -> list[list[int]]:
    """Group tasks whose recipes differ in bits alone."""
    groups: dict[str, list[int]] = {}
    for index, (_, recipe) in enumerate(tasks):
        key = recipe.model_copy(update={"grid": recipe.grid.model_copy(update={"bits": 8})})
        groups.setdefault(key.model_dump_json(), []).append(index)
    return list(groups.values())


def _result(
    weight: torch.Tensor, recipe: GPTQ, hessian: torch.Tensor, factor: Factor, layer: QuantizedLayer | None
) -> Result:
    nearest = round_to_nearest(weight, recipe.grid)
    chosen = layer or nearest
    finite = bool(torch.isfinite(hessian).all())
    entry = Entry(
        requested="gptq",
        method="gptq" if layer else "rtn",
        reason=factor.reason,
        bits=recipe.grid.bits,
        group_size=chosen.group_size,
        order=recipe.order if layer else None,
        damping=factor.damping,
        attempts=factor.attempts,
        dead_columns=int(factor.dead.sum()),
        proxy_loss=proxy_loss(weight, chosen, hessian) if finite else None,
        rtn_proxy_loss=proxy_loss(weight, nearest, hessian) if finite else None,
        relative_error=relative_error(weight, chosen),
    )
    return Result(chosen, entry)


def _sweep_layers(tasks: Sequence[Task], factor: Factor) -> list[QuantizedLayer]:
    """Run one sweep over the rows of all `tasks` and cut its result into layers."""
    recipe, order = tasks[0][1], factor.order
    inputs, size = len(order), group_size_for(tasks[0][1].grid, len(order))
    rows = [len(weight) for weight, _ in tasks]
    columns = torch.cat([weight for weight, _ in tasks]).T.contiguous()  # [inputs, rows]
    columns[factor.dead] = 0
    tops = torch.cat([columns.new_full((len(weight),), (1 << own.grid.bits) - 1) for weight, own in tasks])  # [rows]
    index = neighbouring_groups(inputs, size).to(order.device)
    if recipe.static_groups:
        groups = columns.reshape(inputs // size, size, -1).mT  # [groups, rows, group]
        scales, zeros = find_scales(groups, tops, recipe.grid.symmetric)  # [groups, rows]
        codes = _sweep(columns[order], factor.spread, tops, recipe, (scales, zeros), index[order].tolist())[0]
    else:
        codes, scales, zeros = _sweep(columns[order], factor.spread, tops, recipe)
        index = torch.empty_like(index).index_copy_(0, order, index)
    codes = torch.empty_like(codes).index_copy_(0, order, codes)
    parts = zip(*(part.T.contiguous().split(rows) for part in (codes, scales, zeros.to(torch.uint8))), strict=True)
    return [
        QuantizedLayer(own.grid.bits, own.grid.symmetric, *part, index)
        for (_, own), part in zip(tasks, parts, strict=True)
    ]


def _sweep(
    columns: torch.Tensor,
    spread: torch.Tensor,
    tops: torch.Tensor,
    recipe: GPTQ,
    static: tuple[torch.Tensor, torch.Tensor] | None = None,
    groups: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantize inputs one after the other, in the order given.

    Args:
        columns: the weights [inputs, rows], overwritten. Inputs come first so that each is contiguous.
        spread: of `Factor`.
        tops: the highest code of each row [rows].
        recipe: its grid, block size.
        static: scales and zeros [groups, rows] known beforehand; else they are found when a group is reached, from
            weights that carry all errors so far.
        groups: the group of each input, with `static`; else groups are neighbours.

    Returns:
        Codes, uint8 [inputs, rows]; scales and zeros [groups, rows].
    """
    inputs, rows = columns.shape
    size = group_size_for(recipe.grid, inputs)
    spread = spread.to(columns.dtype)
    scales, zeros = static or (columns.new_empty(inputs // size, rows), columns.new_empty(inputs // size, rows))
    codes = torch.empty(inputs, rows, dtype=torch.uint8, device=columns.device)
    bottoms = torch.zeros_like(tops)
    for start, stop in blocks(inputs, size, recipe.block_size):
        errors = columns.new_empty(stop - start, rows)
        for k in range(start, stop):
            if static is None and k % size == 0:
                scales[k // size], zeros[k // size] = find_scales(columns[k : k + size].T, tops, recipe.grid.symmetric)
            group = groups[k] if groups else k // size
            scale, zero = scales[group], zeros[group]
            code = torch.div(columns[k], scale).round_().add_(zero).clamp_(bottoms, tops)
            codes[k] = code
            error = torch.sub(columns[k], code.sub_(zero).mul_(scale), out=errors[k - start])
            columns[k + 1 : stop].addr_(spread[k, k + 1 : stop], error, alpha=-1)
        columns[stop:].addmm_(spread[start:stop, stop:].T, errors, alpha=-1)
    return codes, scales, zeros


def blocks(inputs: int, group_size: int, block_size: int) -> Iterator[tuple[int, int]]:
    """Cut the inputs into blocks of at most `block_size` (or one group) so that no group starts inside an open one.

    A group whose inputs lie in several blocks starts one; a block that holds several groups holds them whole. Scales
    are thus always found from weights that carry every earlier error, and the block size decides nothing but speed.
    (GPTQModel, with groups smaller than a block, finds them from weights that lack the errors of the open block.)
    """
    span = max(block_size // group_size, 1) * group_size
    step = min(span, block_size)
    for outer in range(0, inputs, span):
        end = min(outer + span, inputs)
        for start in range(outer, end, step):
            yield start, min(start + step, end)
