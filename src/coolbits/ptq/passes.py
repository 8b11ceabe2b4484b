"""Passes over a model's decoder blocks that quantize every linear layer, for one recipe or several at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic

import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import shared_weight, unreached_weights
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.calibration import gather_hessian, gather_hessians, gather_hessians_alone, run_quantizing
from coolbits.ptq.gptq import gptq_together
from coolbits.ptq.grids import group_size_for
from coolbits.ptq.int8 import check_rows
from coolbits.ptq.ledger import Entry, Result, relative_error
from coolbits.ptq.rotated import restore_basis, rotate_hessian, rotate_weight
from coolbits.ptq.tracing import Block, Trace
from coolbits.ptq.unfinished import Kept, Made, Place
from coolbits.ptq.weights import Uncalibrated, quantize_weight
from coolbits.study.recipes.methods import GPTQ, Int8, Method, OnGrid
from coolbits.study.recipes.ptq import Rotation

Linears = Mapping[str, nn.Module]
Results = dict[str, Result]
Advance = Callable[[int], None]

_LARGEST = torch.finfo(torch.float32).max / 2  # a grid spans twice that


def check_reach(model: PreTrainedModel, name: str) -> None:
    """Refuse, before any work, a model of which a part would not be quantized, or twice; `name` says which model.

    Raises:
        CoolbitsError: naming the largest weight in its decoder blocks that lies in no linear layer, or two layers that
            share one weight: each would be quantized for what it reads itself, and the last would overwrite the first.
    """
    if unreached := unreached_weights(model):
        weight, parameter = max(unreached.items(), key=lambda item: item[1].numel())
        raise CoolbitsError(
            f"{name}: {weight}, {' x '.join(map(str, parameter.shape))}, lies in no linear layer and would not be "
            "quantized; allowed are models whose decoder blocks hold all their matrices in linear layers, not "
            "mixtures with their experts in one tensor"
        )
    if layers := shared_weight(model):
        raise CoolbitsError(
            f"{name}: {layers[0]} and {layers[1]} share one weight, which would be quantized once for each; allowed "
            "are models whose linear layers each have a weight of their own"
        )


def check_layers(linears: Linears, method: Method) -> None:
    """Refuse, before any work, weights that the recipe's groups do not fit, or that no grid holds.

    Raises:
        CoolbitsError: naming the layer.
    """
    for name, module in linears.items():
        weight = weight_matrix(module)
        if isinstance(method, OnGrid):
            group_size_for(method.grid, weight.shape[1], name)
        if not all(abs(float(extreme)) <= _LARGEST for extreme in torch.aminmax(weight)):  # a NaN is both extremes
            raise CoolbitsError(
                f"{name}: the weight holds values that are not finite, or above {_LARGEST:.2g}, and cannot be quantized"
            )
        if isinstance(method, Int8):
            check_rows(weight, method, name)


@torch.inference_mode()
def plain_pass(
    linears: Linears,
    method: Uncalibrated,
    advance: Advance,
    rotation: Rotation | None = None,
    device: torch.device | None = None,
) -> Results:
    """Quantize every layer, its inputs rotated, by a method that looks at weights alone.

    One layer at a time is on `device` (None: where it is).
    """
    results: Results = {}
    for name, module in linears.items():
        clock = monotonic()
        weight = rotate_weight(weight_matrix(module).to(device).float(), rotation)
        layer = quantize_weight(weight, method)
        entry = Entry(
            requested=method.kind,
            method=method.kind,
            reason=None,
            bits=layer.bits,
            group_size=layer.group_size,
            order=None,
            damping=None,
            attempts=None,
            condition=None,
            dead_columns=None,
            proxy_loss=None,
            rtn_proxy_loss=None,
            relative_error=relative_error(weight, layer),
        )
        results[name] = restore_basis(Result(layer, entry, monotonic() - clock), rotation).packed()
        advance(1)
    return results


@torch.inference_mode()
def one_pass(
    trace: Trace,
    linears: Linears,
    recipes: Sequence[GPTQ],
    advance: Advance,
    rotation: Rotation | None = None,
    places: Sequence[Place | None] = (),
) -> list[Results]:
    """Quantize by GPTQ, all Hessians being those of the unquantized model; they serve every recipe.

    Recipes have one precision. Finished blocks are kept in `places`, and gone on from: one a recipe, none without.
    """
    made: list[Made] = [({}, {}) for _ in recipes]
    precision = _precision_of(recipes[0])
    kept = Kept(made, places)
    done, inputs = kept.resume(trace, advance)
    for block in trace.blocks[done:]:
        readers = {group[0]: linears[group[0]] for group in block.groups}
        with block.placed():
            hessians, inputs = gather_hessians(block, inputs, readers, precision)
            for group in block.groups:
                weights = {name: rotate_weight(weight_matrix(linears[name]).float(), rotation) for name in group}
                tasks = [(weights[name], recipe) for recipe in recipes for name in group]
                quantized = iter(gptq_together(tasks, rotate_hessian(hessians.pop(group[0]), rotation)))
                for results, _ in made:
                    results.update({name: restore_basis(next(quantized), rotation).packed() for name in group})
                advance(len(tasks))
        kept.write()
    return [results for results, _ in made]


@torch.inference_mode()
def sequential_pass(
    trace: Trace,
    linears: Linears,
    recipe: GPTQ,
    advance: Advance,
    rotation: Rotation | None = None,
    place: Place | None = None,
) -> Results:
    """Quantize by GPTQ, each layer reading what the quantized layers, or blocks, before it give (`GPTQ.sequential`).

    The model's weights are put back, block by block. Finished blocks are kept in `place`, and gone on from.
    """
    results: Results = {}
    precision = _precision_of(recipe)

    def quantize(group: Sequence[str], hessian: torch.Tensor) -> None:
        weights = [rotate_weight(weight_matrix(linears[name]).float(), rotation) for name in group]
        made = gptq_together([(weight, recipe) for weight in weights], rotate_hessian(hessian, rotation))
        for name, rotated in zip(group, made, strict=True):
            result = restore_basis(rotated, rotation)
            weight_matrix(linears[name]).copy_(result.layer.weight())
            results[name] = result.packed()
        advance(len(group))

    @contextmanager
    def quantized(block: Block) -> Iterator[None]:
        with _put_back(linears[name] for name in block.layers):
            for name in block.layers:
                weight_matrix(linears[name]).copy_(results[name].layer_on(block.device).weight())
            yield

    kept = Kept([(results, {})], [place])
    done, inputs = kept.resume(trace, advance, quantized)
    for block in trace.blocks[done:]:
        readers = {group[0]: linears[group[0]] for group in block.groups}
        with block.placed(), _put_back(linears[name] for name in block.layers):
            if recipe.sequential == "layer" and len(inputs) == 1:
                inputs = [run_quantizing(block, inputs[0], linears, quantize, precision)]
            else:
                known = gather_hessians_alone(block, inputs, readers, precision) if recipe.sequential == "block" else {}
                for group in block.groups:
                    reader = readers[group[0]]
                    quantize(group, known.pop(group[0]) if known else gather_hessian(block, inputs, reader, precision))
                if block is not trace.blocks[-1]:
                    _, inputs = gather_hessians(block, inputs, {})
        kept.write()
    return results


def _precision_of(recipe: GPTQ) -> torch.dtype:
    return torch.float64 if recipe.precision == "float64" else torch.float32


@contextmanager
def _put_back(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put the weights of modules back in the end."""
    originals = [(weight_matrix(module), weight_matrix(module).clone()) for module in modules]
    try:
        yield
    finally:
        for weight, original in originals:
            weight.copy_(original)
