"""The pass of AWQ over a model's blocks: find pairs, watch what the unquantized model computes, search, round.

Every block reads the outputs of unquantized blocks, as in llm-awq and llm-compressor, so that one pass serves every
recipe. Within a block no search changes another's: a layer that is scaled as a reader and divided as a producer is
rounded alike in either order, since its groups lie within rows.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from time import monotonic

import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.models.layers import IntegerLayer
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.awq import Scaling, candidate_scales, clipped, layer_error, search_scales
from coolbits.ptq.hooks import full_precision
from coolbits.ptq.ledger import Entry, Result, output_loss, relative_norm
from coolbits.ptq.observation import Seen, observe
from coolbits.ptq.pairs import Links, Pair, find_pairs
from coolbits.ptq.replay import replaying
from coolbits.ptq.rtn import round_to_nearest
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import Block, Trace
from coolbits.ptq.unfinished import Kept, Made, Place
from coolbits.study.recipes.methods import AWQ

Linears = Mapping[str, nn.Module]

NO_PRODUCER = "no scale-equivalent producer"
SHARED = "inputs share channels of their producer"


@torch.inference_mode()
def awq_pass(
    model: PreTrainedModel,
    trace: Trace,
    linears: Linears,
    calibration: Tokens,
    recipes: Sequence[AWQ],
    advance: Callable[[int], None],
    places: Sequence[Place | None] = (),
) -> list[Made]:
    """Quantize every layer by AWQ; return, for each recipe, the results and the other parameters that changed.

    The model is put back as it was. Finished blocks are kept in `places`, and gone on from: one a recipe, none without.
    """
    made: list[Made] = [({}, {}) for _ in recipes]
    kept = Kept(made, places)
    done, inputs = kept.resume(trace, advance)
    found = find_pairs(model, calibration, trace.blocks[0].device)
    for block, links in zip(trace.blocks[done:], found[done:], strict=True):
        parents = {pair.producer.name: _parent(model, pair) for pair in links.pairs}
        with block.placed():
            seen = observe(block, inputs, linears, set(parents.values()))
            for recipe, (results, replaced) in zip(recipes, made, strict=True):
                scalings: dict[str, Scaling | None] = {}
                clock = monotonic()
                for pair in links.pairs:
                    if recipe.shared_channels or not pair.shared:
                        scalings[pair.producer.name] = _search(pair, parents[pair.producer.name], seen, linears, recipe)
                results |= _round_layers(block, links, scalings, seen, linears, recipe, clock)
                replaced |= _replaced(links, scalings, linears)
                advance(len(block.layers))
        inputs = seen.outputs
        kept.write()
    return made


def _parent(model: nn.Module, pair: Pair) -> nn.Module:
    """Return the module whose output a pair's search compares: the smallest that holds all readers.

    So llm-compressor has it: attention for queries, keys and values, the MLP for gate and value, and a lone reader
    itself.
    """
    names = zip(*(name.split(".") for name in pair.rows), strict=False)
    path = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, names)]
    parent = model.get_submodule(".".join(path))
    return parent if not isinstance(parent, nn.ModuleList) else model.get_submodule(".".join(path[:-1]))


def _search(pair: Pair, parent: nn.Module, seen: Seen, linears: Linears, recipe: AWQ) -> Scaling | None:
    weights = {name: weight_matrix(linears[name]).float() for name in pair.rows}
    candidates = candidate_scales(pair, weights, seen.magnitudes, recipe)
    with full_precision(pair.used.device):
        if parent in seen.calls:
            objective = replaying(parent, seen.calls[parent], linears)
        else:
            (reader,) = pair.rows
            objective = layer_error(reader, weights[reader], seen.hessians[reader])
        return search_scales(pair, weights, candidates, objective, recipe)


def _round_layers(
    block: Block,
    links: Links,
    scalings: Mapping[str, Scaling | None],
    seen: Seen,
    linears: Linears,
    recipe: AWQ,
    clock: float,
) -> dict[str, Result]:
    """Scale, clip and round a block's layers; `seconds` are equal shares of the time since `clock`."""
    reads = {name: pair for pair in links.pairs for name in pair.rows}
    rounded: dict[str, tuple[IntegerLayer, Entry]] = {}
    for name in (name for group in block.groups for name in group):
        weight, hessian, pair = weight_matrix(linears[name]).float(), seen.hessians[name], reads.get(name)
        scaling = scalings.get(pair.producer.name) if pair else None
        columns = pair.columns(name, scaling.scales) if pair and scaling else torch.ones_like(weight[0])
        divided = scalings.get(name)
        rows = divided.scales[:, None] if divided else torch.ones_like(weight[:, :1])
        sighted = bool(hessian.isfinite().all() and hessian.any())
        clips = sighted and recipe.clip and (recipe.clip_steering or name not in links.steering)

        scaled = weight * columns / rows
        if clips:
            scaled = clipped(scaled, hessian / columns[:, None] / columns, recipe)
        layer = round_to_nearest(scaled, recipe.grid)
        error = weight - layer.weight() * rows / columns
        rtn_error = weight - round_to_nearest(weight, recipe.grid).weight()
        rounded[name] = (
            layer,
            Entry(
                requested="awq",
                method="awq" if scaling else "clip" if clips else "rtn",
                reason=None if scaling else _reason(pair, hessian),
                bits=layer.bits,
                group_size=layer.group_size,
                order=None,
                damping=None,
                attempts=None,
                condition=None,
                dead_columns=int((hessian.diagonal() == 0).sum()),
                proxy_loss=output_loss(error, hessian) if sighted else None,
                rtn_proxy_loss=output_loss(rtn_error, hessian) if sighted else None,
                relative_error=relative_norm(error, weight),
                producer=pair.producer.name if pair and scaling else None,
                exponent=scaling.exponent if scaling else None,
            ),
        )
    share = (monotonic() - clock) / len(rounded)
    return {name: Result(layer, entry, share).packed() for name, (layer, entry) in rounded.items()}


def _reason(pair: Pair | None, hessian: torch.Tensor) -> str:
    if not hessian.isfinite().all():
        return "the Hessian is not finite"
    if not hessian.any():
        return "no calibration input other than zero"
    if pair is None:
        return NO_PRODUCER
    return SHARED if pair.shared else "no scaling gives a finite loss"


def _replaced(links: Links, scalings: Mapping[str, Scaling | None], linears: Linears) -> dict[str, torch.Tensor]:
    """Return the producers' parameters that scales changed, save weights of layers that are quantized themselves."""
    replaced: dict[str, torch.Tensor] = {}
    for pair in links.pairs:
        name, scaling = pair.producer.name, scalings.get(pair.producer.name)
        if scaling is not None and scaling.exponent is not None:
            divided = pair.producer.divided(scaling.scales)
            kept = ("bias",) if name in linears else ("weight", "bias")
            replaced |= {f"{name}.{key}": divided[key].cpu() for key in kept if key in divided}
    return replaced
