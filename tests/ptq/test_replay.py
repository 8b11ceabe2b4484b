"""Calls made again: cut into tokens, sequences or not at all, by what the module allows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.observation import Call, observe
from coolbits.ptq.replay import replaying
from coolbits.ptq.search import ALL, Objective, Weighed
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import trace_model

LENGTHS = torch.tensor([32, 32, 20, 9, 32, 11])
TOKENS = torch.randint(0, 96, (6, 32), generator=torch.Generator().manual_seed(0))
WHOLE = Tokens.of_equal_length(TOKENS)


@torch.inference_mode()
def watched(model: PreTrainedModel, path: str, tokens: Tokens) -> tuple[nn.Module, list[Call], dict[str, nn.Module]]:
    linears = decoder_linears(model)
    trace = trace_model(model, decoder_blocks(model), linears, tokens)
    module = model.get_submodule(path)
    return module, observe(trace.blocks[0], trace.inputs, linears, {module}).calls[module], linears


def called(module: nn.Module, *arguments: torch.Tensor, real: torch.Tensor | None = None, **keywords: Any) -> Call:
    with torch.inference_mode():
        return Call(arguments, keywords, module(*arguments, **keywords), real)


def perturbed(name: str, linears: dict[str, nn.Module]) -> Weighed:
    weight = weight_matrix(linears[name])
    other = weight + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return lambda outputs: {name: other[outputs]}


@torch.inference_mode()
def whole_loss(module: nn.Module, calls: list[Call], linears: dict[str, nn.Module], name: str) -> float:
    """The squared error over tokens, from calls as they were."""

    def outputs() -> list[torch.Tensor]:
        found = [module(*call.arguments, **call.keywords) for call in calls]
        return [each[0] if isinstance(each, tuple) else each for each in found]

    wanted, weight = outputs(), weight_matrix(linears[name])
    before = weight.clone()
    weight.copy_(perturbed(name, linears)(ALL)[name])
    errors = [(found - each).square().sum(-1).flatten() for found, each in zip(outputs(), wanted, strict=True)]
    weight.copy_(before)
    real = [slice(None) if call.real is None else call.real.flatten() for call in calls]
    return sum(float(error[each].sum()) for error, each in zip(errors, real, strict=True))


@torch.inference_mode()
def check(objective: Objective, weighed: Weighed, total: float) -> None:
    """Every order and every portion of the units gives the same losses, and all together the whole loss."""
    units = torch.arange(objective.units)
    losses = objective.losses(weighed, units)
    assert float(losses.sum(dtype=torch.float64)) == pytest.approx(total, rel=1e-4)
    order = torch.randperm(len(units), generator=torch.Generator().manual_seed(2))
    for chosen in (order, order[:3], order[-1:]):
        torch.testing.assert_close(objective.losses(weighed, chosen), losses[chosen], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("tokens", [WHOLE, Tokens(TOKENS, LENGTHS)], ids=["whole", "padded"])
@pytest.mark.parametrize(
    ("path", "reader", "drawn"),
    [("attention", "query_key_value", False), ("mlp", "dense_h_to_4h", True)],
    ids=["sequences", "tokens"],
)
def test_calls_are_cut_as_the_module_allows(
    path: str, reader: str, drawn: bool, tokens: Tokens, model: PreTrainedModel
) -> None:
    path = f"gpt_neox.layers.0.{path}"
    module, calls, linears = watched(model, path, tokens)
    with torch.inference_mode():
        objective = replaying(module, calls, linears)
    assert (objective.drawn, objective.units) == (drawn, tokens.count if drawn else 6)
    check(objective, perturbed(f"{path}.{reader}", linears), whole_loss(module, calls, linears, f"{path}.{reader}"))


class Mixing(nn.Module):
    """A layer whose outputs depend on all its inputs."""

    def __init__(self, mix: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.mix = nn.Linear(4, 4), mix

    def forward(self, hidden: torch.Tensor, **_others: Any) -> torch.Tensor:
        return self.mix(self.layer(hidden))


@pytest.mark.parametrize(
    ("mix", "units"),
    [
        (lambda hidden: hidden, 30),
        (lambda hidden: hidden.cumsum(1), 6),
        (lambda hidden: hidden + hidden.mean((0, 1)), 2),
        (lambda hidden: hidden.reshape(3, 5, 4) * 2, 2),
    ],
    ids=["tokens", "sequences", "nothing", "a shape of its own"],
)
def test_what_a_module_mixes_stays_together(mix: Callable[[torch.Tensor], torch.Tensor], units: int) -> None:
    torch.manual_seed(0)
    module = Mixing(mix)
    calls = [called(module, torch.randn(3, 5, 4), other=torch.ones(3, 2, 2), flag=None) for _ in range(2)]
    linears = {"layer": module.layer}
    with torch.inference_mode():
        objective = replaying(module, calls, linears)
    assert objective.units == units
    check(objective, perturbed("layer", linears), whole_loss(module, calls, linears, "layer"))


def test_one_large_token_hides_no_other() -> None:
    """Running sums, whose first token comes out right alone, so large that in one norm the others would vanish."""
    torch.manual_seed(0)
    module = Mixing(lambda hidden: torch.cat([1e6 + hidden[:, :1], hidden[:, 1:].cumsum(1)], 1))
    calls = [called(module, torch.randn(1, 64, 4))]
    with torch.inference_mode():
        assert replaying(module, calls, {"layer": module.layer}).units == 1


def test_padding_that_is_no_number_is_left_out() -> None:
    torch.manual_seed(0)
    module = Mixing(lambda hidden: hidden.cumsum(1))
    real = torch.arange(9) < torch.tensor([[9], [5], [7]])
    call = called(module, torch.where(real[..., None], torch.randn(3, 9, 4), torch.nan), real=real)
    with torch.inference_mode():
        objective = replaying(module, [call], {"layer": module.layer})
        losses = objective.losses(perturbed("layer", {"layer": module.layer}), torch.arange(objective.units))
    assert objective.units == 3 and losses.isfinite().all()


@pytest.mark.parametrize(("length", "pieces"), [(7, 1), (128, 16), (256, 32), (2048, 32)])
def test_a_sequence_loses_in_so_many_pieces(length: int, pieces: int) -> None:
    module = Mixing(lambda hidden: hidden.cumsum(1))
    with torch.inference_mode():
        objective = replaying(module, [called(module, torch.randn(2, length, 4))], {"layer": module.layer})
        assert objective.losses(lambda _outputs: {}, torch.arange(2)).shape == (2, pieces)


def test_sequences_of_calls_of_unequal_length_lose_in_as_many_pieces() -> None:
    """A race puts together what it was told in portions."""
    torch.manual_seed(0)
    module = Mixing(lambda hidden: hidden.cumsum(1))
    calls = [called(module, torch.randn(3, length, 4)) for length in (9, 30)]
    with torch.inference_mode():
        objective = replaying(module, calls, {"layer": module.layer})
    check(
        objective,
        perturbed("layer", {"layer": module.layer}),
        whole_loss(module, calls, {"layer": module.layer}, "layer"),
    )
