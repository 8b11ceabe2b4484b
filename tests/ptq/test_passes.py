"""Passes against the same thing done slowly: whole forward passes, one layer at a time."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.gptq import gptq
from coolbits.ptq.passes import check_layers, check_reach, one_pass, plain_pass, sequential_pass
from coolbits.ptq.rtn import round_to_nearest
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import Trace, trace_model
from coolbits.study.recipes.methods import GPTQ, RTN, Grid

TOKENS = torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(0))


def gptq_recipe(bits: int = 3, **knobs: object) -> GPTQ:
    return GPTQ(grid=Grid(bits=bits, group_size=16), **knobs)


@pytest.fixture
def linears(model: PreTrainedModel) -> dict[str, nn.Module]:
    return decoder_linears(model)


@pytest.fixture
def trace(model: PreTrainedModel, linears: dict[str, nn.Module]) -> Trace:
    return trace_model(model, decoder_blocks(model), linears, Tokens.of_equal_length(TOKENS))


class Counter:
    def __init__(self) -> None:
        self.done = 0

    def __call__(self, units: int) -> None:
        self.done += units


def hessian_of(model: PreTrainedModel, module: nn.Module) -> torch.Tensor:
    caught = []
    handle = module.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        model(TOKENS)
    handle.remove()
    vectors = caught[0].reshape(-1, caught[0].shape[-1]).double()
    return 2 * vectors.T @ vectors / len(vectors)


def test_layers_that_share_one_weight_are_refused(model: PreTrainedModel) -> None:
    """Each reads something else, and the codes made for the last would stand for both."""
    check_reach(model, "this model")
    first, last = (block.mlp for _, block in decoder_blocks(model))
    last.dense_4h_to_h.weight = first.dense_4h_to_h.weight
    reason = (
        r"^this model: gpt_neox\.layers\.0\.mlp\.dense_4h_to_h and gpt_neox\.layers\.1\.mlp\.dense_4h_to_h share one "
        "weight, .*; allowed are models whose linear layers each have a weight of their own$"
    )
    with pytest.raises(CoolbitsError, match=reason):
        check_reach(model, "this model")


def test_rtn_rounds_every_layer(linears: dict[str, nn.Module]) -> None:
    recipe, counter = RTN(grid=Grid(bits=3, group_size=16)), Counter()
    results = plain_pass(linears, recipe, counter)
    assert list(results) == list(linears)
    assert counter.done == len(linears)
    for name, module in linears.items():
        assert torch.equal(results[name].layer.codes, round_to_nearest(module.weight.detach(), recipe.grid).codes)


def test_one_pass_has_the_hessians_of_the_unquantized_model_for_every_bit_width(
    model: PreTrainedModel, linears: dict[str, nn.Module], trace: Trace
) -> None:
    recipes, counter = [gptq_recipe(bits) for bits in (3, 4)], Counter()
    together = one_pass(trace, linears, recipes, counter)
    assert counter.done == 2 * len(linears)
    for recipe, results in zip(recipes, together, strict=True):
        assert set(results) == set(linears)
        for name, module in linears.items():
            expected = gptq(module.weight.detach(), hessian_of(model, module), recipe)
            assert results[name].entry.proxy_loss == pytest.approx(expected.entry.proxy_loss, rel=1e-3)
            assert (results[name].layer.codes != expected.layer.codes).float().mean() < 0.01


def test_onednn_makes_a_passs_products_where_it_is_faster(
    model: PreTrainedModel, linears: dict[str, nn.Module], trace: Trace, by_onednn: list[Any]
) -> None:
    (results,) = one_pass(trace, linears, [gptq_recipe()], Counter())
    assert {id(weight) for _, weight in by_onednn} > {id(module.weight) for module in linears.values()}
    by_onednn.clear()
    for name, module in linears.items():
        expected = gptq(module.weight.detach(), hessian_of(model, module), gptq_recipe())
        assert results[name].entry.proxy_loss == pytest.approx(expected.entry.proxy_loss, rel=1e-3)
        assert (results[name].layer.codes != expected.layer.codes).float().mean() < 0.01


def test_a_sequential_pass_has_hessians_behind_quantized_layers(
    model: PreTrainedModel, linears: dict[str, nn.Module], trace: Trace
) -> None:
    results = sequential_pass(trace, linears, gptq_recipe(), Counter())
    for name, module in linears.items():
        expected = gptq(module.weight.detach(), hessian_of(model, module), gptq_recipe())
        assert results[name].entry.proxy_loss == pytest.approx(expected.entry.proxy_loss, rel=1e-3)
        assert (results[name].layer.codes != expected.layer.codes).float().mean() < 0.01
        with torch.no_grad():
            module.weight.copy_(results[name].layer.weight())


def test_sequential_by_block_has_hessians_behind_quantized_blocks_alone(
    model: PreTrainedModel, linears: dict[str, nn.Module], trace: Trace
) -> None:
    recipe = gptq_recipe(sequential="block")
    results = sequential_pass(trace, linears, recipe, Counter())
    for block, _ in decoder_blocks(model):
        own = {name: module for name, module in linears.items() if name.startswith(block)}
        for name, module in own.items():
            expected = gptq(module.weight.detach(), hessian_of(model, module), recipe)
            assert results[name].entry.proxy_loss == pytest.approx(expected.entry.proxy_loss, rel=1e-3)
            assert (results[name].layer.codes != expected.layer.codes).float().mean() < 0.01
        for name, module in own.items():
            with torch.no_grad():
                module.weight.copy_(results[name].layer.weight())


@pytest.mark.parametrize("sequential", [True, False])
def test_a_pass_leaves_the_model_as_it_was(
    model: PreTrainedModel, linears: dict[str, nn.Module], trace: Trace, sequential: bool
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if sequential:
        sequential_pass(trace, linears, gptq_recipe(), Counter())
    else:
        one_pass(trace, linears, [gptq_recipe()], Counter())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_layer_that_calibration_never_reaches_falls_back_visibly(model: PreTrainedModel) -> None:
    model.gpt_neox.layers[0].mlp.idle = nn.Linear(32, 8)
    linears = decoder_linears(model)
    trace = trace_model(model, decoder_blocks(model), linears, Tokens.of_equal_length(TOKENS))
    name = "gpt_neox.layers.0.mlp.idle"
    for results in (
        one_pass(trace, linears, [gptq_recipe()], Counter())[0],
        sequential_pass(trace, linears, gptq_recipe(), Counter()),
    ):
        assert (results[name].entry.method, results[name].entry.reason) == (
            "rtn",
            "no calibration input other than zero",
        )
        assert torch.equal(
            results[name].layer.codes, round_to_nearest(weight_matrix(linears[name]), Grid(bits=3, group_size=16)).codes
        )
        assert sum(result.entry.fell_back for result in results.values()) == 1


def test_layers_are_checked_by_name(linears: dict[str, nn.Module]) -> None:
    with pytest.raises(CoolbitsError, match=r"48 does not divide the 32 inputs of gpt_neox\.layers\.0\.attention"):
        check_layers(linears, RTN(grid=Grid(bits=3, group_size=48)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1.71e38, -1.71e38])
def test_weights_that_no_grid_holds_are_refused(linears: dict[str, nn.Module], value: float) -> None:
    recipe, name = RTN(grid=Grid(bits=3, group_size=16)), "gpt_neox.layers.1.mlp.dense_h_to_4h"
    weight = linears[name].weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        weight[0, 0] = 1.7e38
    check_layers(linears, recipe)
    assert bool(round_to_nearest(weight.detach(), recipe.grid).weight().isfinite().all())
    with torch.no_grad():
        weight[0, 0] = value
    reason = (
        f"^{re.escape(name)}: the weight holds values that are not finite, or above 1.7e\\+38, and cannot be quantized$"
    )
    with pytest.raises(CoolbitsError, match=reason):
        check_layers(linears, recipe)
