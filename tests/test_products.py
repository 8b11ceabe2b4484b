"""Products made another way than PyTorch's own: of bfloat16 numbers, those that a processor would make itself; of
float32, as near to the exact ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from coolbits import products
from coolbits.optim.newton_schulz import orthogonalize
from coolbits.products import bfloat16_products, linear, matmul

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


def wide(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


RIGHT = wide(300, 40, seed=1)
FACTORS = {
    "dense": (wide(7, 300), RIGHT),
    "sequences": (wide(2, 5, 300), RIGHT),
    "transposed": (wide(300, 7).T, wide(40, 300, seed=1).T),
    "parts of rows": (wide(7, 320)[:, 20:], wide(300, 64, seed=1)[:, 8:48]),
    "parts of columns": (wide(320, 7).T[:, 20:], wide(40, 320, seed=1).T[20:]),
    "every second": (wide(7, 600)[:, ::2], wide(600, 40, seed=1)[::2]),
    "no rows": (wide(0, 300), RIGHT),
    "a sum of nothing": (wide(7, 0), wide(0, 40)),
}


@pytest.mark.parametrize("kind", FACTORS)
def test_products_of_float32_are_exact_but_for_the_rounding_of_their_sums(kind: str, by_onednn: list[Any]) -> None:
    left, right = FACTORS[kind]
    with torch.no_grad():
        made = matmul(left, right)
    assert made.dtype == torch.float32 and made.shape == (*left.shape[:-1], right.shape[1])
    sums = left.double().abs() @ right.double().abs()
    # Each of the additions rounds by half of 2**-23 at most.
    assert bool(((made - left.double() @ right.double()).abs() <= left.shape[-1] * 2**-24 * sums).all())
    assert bool(by_onednn) == bool(right.numel())
    # Of others oneDNN makes products by plain loops, a thousand times as slow.
    assert all(weight.is_contiguous() or weight.mT.is_contiguous() for _, weight in by_onednn[-1:])


def test_a_layer_adds_its_bias(by_onednn: list[Any]) -> None:
    with torch.no_grad():
        made = linear(wide(2, 5, 30), wide(7, 30, seed=1), wide(7, seed=2))
    assert by_onednn
    torch.testing.assert_close(made, functional.linear(wide(2, 5, 30), wide(7, 30, seed=1), wide(7, seed=2)))


def test_what_has_gradients_or_is_cast_is_left_to_pytorch(by_onednn: list[Any]) -> None:
    inputs, weight = wide(5, 30), wide(7, 30, seed=1).requires_grad_()
    linear(inputs, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, inputs.sum(0).expand(7, 30))
    with torch.no_grad(), torch.autocast("cpu", HALF):
        assert linear(inputs, weight).dtype == HALF
    with torch.no_grad():
        assert linear(inputs.double(), weight.double()).dtype == torch.float64
        assert linear(inputs.to(HALF), weight.to(HALF)).dtype == HALF
    assert not by_onednn


@pytest.mark.parametrize(
    ("vendor", "capability", "slow"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("GenuineIntel", "AVX512", False),
        ("AuthenticAMD", "AVX2", False),
        ("", "AVX512", False),
    ],
)
def test_mkl_is_slow_where_a_processor_that_is_not_intels_has_avx512(
    vendor: str, capability: str, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "cpu_says", lambda _field: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert products.mkl_is_slow.__wrapped__() is slow
