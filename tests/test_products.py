"""Products of bfloat16 numbers: those that are made in float32 are the ones that a processor would make itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from coolbits import products
from coolbits.optim.newton_schulz import orthogonalize
from coolbits.products import bfloat16_products

HALF = torch.bfloat16


pytestmark = pytest.mark.usefixtures("widened")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(HALF)


def with_gradients(function: Callable[..., Tensor], *factors: Tensor) -> list[Tensor]:
    """Return a function's result and the gradient of each factor."""
    own = [factor.clone().requires_grad_() for factor in factors]
    result = function(*own)
    result.backward(numbers(*result.shape, seed=9).to(result.dtype))
    return [result.detach(), *(factor.grad for factor in own if factor.grad is not None)]


FUNCTIONS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "matrices": (torch.mm, (numbers(5, 33), numbers(33, 7, seed=1))),
    "batches": (torch.bmm, (numbers(3, 5, 33), numbers(3, 33, 7, seed=1))),
    "a layer": (functional.linear, (numbers(3, 5, 33), numbers(7, 33, seed=1), numbers(7, seed=2))),
    "a convolution": (functional.conv2d, (numbers(2, 3, 9, 9), numbers(4, 3, 3, 3, seed=1), numbers(4, seed=2))),
}


@pytest.mark.parametrize(("function", "factors"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_results_and_gradients_are_sums_in_float32_rounded_once(
    function: Callable[..., Tensor], factors: tuple[Tensor, ...]
) -> None:
    with bfloat16_products("cpu", HALF):
        made = with_gradients(function, *factors)
    exact = with_gradients(function, *(factor.double() for factor in factors))
    assert {result.dtype for result in made} == {HALF}
    for result, expected in zip(made, exact, strict=True):
        rounded = expected.to(HALF)
        # The last bit of a sum in float32 may decide to which side the rounding goes.
        assert (result != rounded).float().mean() < 0.01
        torch.testing.assert_close(result.double(), expected, rtol=2**-8, atol=2**-16 * expected.abs().max().item())


def test_they_are_those_of_pytorch_but_for_the_order_of_sums() -> None:
    for function, factors in FUNCTIONS.values():
        with bfloat16_products("cpu", HALF):
            made = with_gradients(function, *factors)
        for result, expected in zip(made, with_gradients(function, *factors), strict=True):
            torch.testing.assert_close(result, expected, rtol=2**-7, atol=2**-7 * expected.abs().max().item())


@pytest.mark.parametrize("masked", [False, True], ids=["causal", "masked"])
def test_attentions_gradients_are_rounded_once(masked: bool) -> None:
    mask = torch.ones(16, 16, dtype=torch.bool).tril()

    def attention(*factors: Tensor) -> Tensor:
        given = {"attn_mask": mask} if masked else {"is_causal": True}
        return functional.scaled_dot_product_attention(*factors, **given)

    factors = [numbers(2, 3, 16, 8, seed=seed) for seed in range(3)]
    with bfloat16_products("cpu", HALF):
        made = with_gradients(attention, *factors)
    for result, expected in zip(made, with_gradients(attention, *map(Tensor.double, factors)), strict=True):
        assert result.dtype == HALF
        torch.testing.assert_close(result.double(), expected, rtol=2**-6, atol=2**-6 * expected.abs().max().item())


def test_autocast_of_a_model_is_met_in_both_passes_and_in_inference(widened: list[Any]) -> None:
    layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    inputs = numbers(5, 8).float()
    with bfloat16_products("cpu", HALF):
        with torch.autocast("cpu", HALF):
            result = layers(inputs)
        forward = len(widened)
        result.sum().backward()
        backward = len(widened) - forward
        with torch.inference_mode(), torch.autocast("cpu", HALF):
            layers(inputs)
    assert forward > 0 and backward > 0 and len(widened) > forward + backward


def test_products_of_other_numbers_are_left_as_they_are() -> None:
    wide = numbers(5, 33).float(), numbers(33, 7, seed=1).float()
    expected = torch.mm(*wide)
    with bfloat16_products("cpu", HALF):
        assert torch.equal(torch.mm(*wide), expected)


@pytest.mark.parametrize(
    ("device", "dtype", "has"), [("cuda", HALF, False), ("cpu", torch.float32, False), ("cpu", HALF, True)]
)
def test_where_nothing_is_to_be_won_nothing_is_done(
    device: str, dtype: torch.dtype, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "has_bfloat16", lambda: has)
    assert not products.widens(device, dtype)
    monkeypatch.setattr(products, "_Widened", None)
    with bfloat16_products(device, dtype):
        pass


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (2, 16, 16)])
def test_newton_schulz_is_as_near_to_float32_as_with_the_processors_own(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = numbers(*shape).float()
    made = orthogonalize(matrices)
    monkeypatch.setattr(products, "has_bfloat16", lambda: True)
    own, exact = orthogonalize(matrices), orthogonalize(matrices.double(), dtype=torch.float64)
    assert not torch.equal(made.double(), exact)
    assert (made - exact).norm() < 1.5 * (own - exact).norm()
    assert (made - own).norm() < (own - exact).norm()
