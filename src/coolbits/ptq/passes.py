"""Passes over a model's decoder blocks that quantize every linear layer, for one recipe or several at once."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.calibration import gather_hessian, gather_hessians
from coolbits.ptq.gptq import gptq_together
from coolbits.ptq.grids import group_size_for
from coolbits.ptq.ledger import Entry, Result, relative_error
from coolbits.ptq.rtn import round_to_nearest
from coolbits.ptq.tracing import Trace
from coolbits.study.recipes.ptq import GPTQ, RTN, Method

Linears = Mapping[str, nn.Module]
Results = dict[str, Result]
Advance = Callable[[int], None]


def check_layers(linears: Linears, method: Method) -> None:
    """Refuse, before any work, weights that the recipe's groups do not fit, or that are not finite.

    Raises:
        CoolbitsError: naming the layer.
    """
    for name, module in linears.items():
        weight = weight_matrix(module)
        group_size_for(method.grid, weight.shape[1], name)
        if not torch.isfinite(weight).all():
            raise CoolbitsError(f"{name}: the weight holds values that are not finite and cannot be quantized")


@torch.inference_mode()
def rtn_pass(linears: Linears, recipe: RTN, advance: Advance) -> Results:
    """Round every layer to nearest."""
    results: Results = {}
    for name, module in linears.items():
        weight = weight_matrix(module).float()
        layer = round_to_nearest(weight, recipe.grid)
        entry = Entry(
            requested="rtn",
            method="rtn",
            reason=None,
            bits=layer.bits,
            group_size=layer.group_size,
            order=None,
            damping=None,
            attempts=None,
            dead_columns=None,
            proxy_loss=None,
            rtn_proxy_loss=None,
            relative_error=relative_error(weight, layer),
        )
        results[name] = Result(layer, entry)
        advance(1)
    return results


@torch.inference_mode()
def one_pass(trace: Trace, linears: Linears, recipes: Sequence[GPTQ], advance: Advance) -> list[Results]:
    """Quantize by GPTQ, all Hessians being those of the unquantized model; they serve every recipe."""
    results: list[Results] = [{} for _ in recipes]
    inputs = trace.inputs
    for block in trace.blocks:
        hessians, inputs = gather_hessians(block, inputs, {group[0]: linears[group[0]] for group in block.groups})
        for group in block.groups:
            tasks = [(weight_matrix(linears[name]).float(), recipe) for recipe in recipes for name in group]
            made = iter(gptq_together(tasks, hessians[group[0]]))
            for result in results:
                result.update({name: next(made) for name in group})
            advance(len(tasks))
    return results


@torch.inference_mode()
def sequential_pass(trace: Trace, linears: Linears, recipe: GPTQ, advance: Advance) -> Results:
    """Quantize by GPTQ, each layer reading what the quantized layers before it give (GPTQModel's `true_sequential`).

    The model's weights are put back, block by block.
    """
    results: Results = {}
    inputs = trace.inputs
    for block in trace.blocks:
        names = [name for group in block.groups for name in group]
        originals = {name: weight_matrix(linears[name]).clone() for name in names}
        try:
            for group in block.groups:
                hessian = gather_hessian(block, inputs, linears[group[0]])
                made = gptq_together([(originals[name].float(), recipe) for name in group], hessian)
                for name, result in zip(group, made, strict=True):
                    results[name] = result
                    weight_matrix(linears[name]).copy_(result.layer.weight())
                advance(len(group))
            if block is not trace.blocks[-1]:
                _, inputs = gather_hessians(block, inputs, {})
        finally:
            for name in names:
                weight_matrix(linears[name]).copy_(originals[name])
    return results
