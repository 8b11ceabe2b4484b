"""The kernel against the product with dequantized weights, in float64 and as PyTorch has it."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

pytest.importorskip("triton")

from coolbits.models import kernels
from coolbits.models.layers import IntegerLayer, RotatedLayer, neighbouring_groups
from coolbits.models.packing import pack

# Of the largest result. The interpreter cuts bfloat16 where a GPU rounds it.
TOLERANCES = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 2e-2}


@dataclass
class Problem:
    """Inputs of some tokens, and a layer."""

    x: Tensor
    layer: IntegerLayer

    def product(self, bias: Tensor | None = None) -> Tensor:
        zeros = None if self.layer.symmetric else self.layer.zeros
        codes = pack(self.layer.codes, self.layer.bits)
        return kernels.dequantize_matmul(self.x, codes, self.layer.scales, zeros, self.layer.bits, bias)

    def exact(self) -> Tensor:
        """The product in float64 of what the operands are, weights in the dtype of x."""
        return self.x.double() @ self.layer.weight().to(self.x.dtype).double().T


def problem(
    rows: int,
    outputs: int,
    inputs: int,
    group: int | None = None,
    bits: int = 4,
    symmetric: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    real_zeros: bool = False,
) -> Problem:
    generator = torch.Generator().manual_seed(rows + outputs + inputs)
    size = group or inputs
    groups = inputs // size
    codes = torch.randint(0, 1 << bits, (outputs, inputs), dtype=torch.uint8, generator=generator)
    scales = 0.01 + torch.rand(outputs, groups, generator=generator)
    zeros = torch.full((outputs, groups), 1 << (bits - 1), dtype=torch.uint8)
    if not symmetric:
        zeros = torch.randint(0, 1 << bits, (outputs, groups), dtype=torch.uint8, generator=generator)
    if real_zeros:
        zeros = 8 * torch.rand(outputs, groups, generator=generator)
    x = torch.randn(rows, inputs, generator=generator).to(dtype)
    parts = (part.to(device) for part in (codes, scales, zeros, neighbouring_groups(inputs, size)))
    return Problem(x.to(device), IntegerLayer(bits, symmetric, *parts))


def assert_near(found: Tensor, exact: Tensor) -> None:
    assert (found.double() - exact).abs().max() <= TOLERANCES[found.dtype] * exact.abs().max()


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("group", [32, 64, 128, None])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_product_is_that_with_dequantized_weights(
    bits: int, group: int | None, symmetric: bool, device: torch.device
) -> None:
    given_problem = problem(5, 70, 256, group, bits, symmetric, device=device)
    assert_near(given_problem.product(), given_problem.exact())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [3, 4])
def test_half_precision_stays_half_precision(bits: int, dtype: torch.dtype, device: torch.device) -> None:
    given_problem = problem(5, 70, 128, 64, bits, False, dtype, device)
    found = given_problem.product()
    assert found.dtype == dtype
    assert_near(found, given_problem.exact())


def test_it_is_as_near_as_pytorch_with_dequantized_weights(device: torch.device) -> None:
    given_problem = problem(9, 33, 512, 128, 3, False, device=device)
    exact = given_problem.exact()
    errors = [
        float((found - exact).abs().max())
        for found in (given_problem.product(), functional.linear(given_problem.x, given_problem.layer.weight()))
    ]
    assert errors[0] <= 4 * errors[1]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 150), st.sampled_from([2, 3, 4]), st.booleans())
def test_any_shape_with_a_scale_a_row(
    device: torch.device, rows: int, outputs: int, inputs: int, bits: int, symmetric: bool
) -> None:
    given_problem = problem(rows, outputs, inputs, None, bits, symmetric, device=device)
    assert_near(given_problem.product(), given_problem.exact())


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 70), st.integers(1, 9), st.sampled_from([32, 64, 96]), st.sampled_from([3, 4])
)
def test_any_number_of_groups(device: torch.device, rows: int, outputs: int, groups: int, size: int, bits: int) -> None:
    given_problem = problem(rows, outputs, groups * size, size, bits, False, device=device)
    assert_near(given_problem.product(), given_problem.exact())


def test_every_code_is_read_where_it_was_packed(device: torch.device) -> None:
    """Of the unit vectors the product gives the weights back, one by one and bit for bit."""
    for bits in (2, 3, 4):
        for inputs in (8, 21, 64, 100):
            given_problem = problem(inputs, 19, inputs, None, bits, device=device)
            given_problem.x = torch.eye(inputs, device=device)
            assert torch.equal(given_problem.product().T, given_problem.layer.weight())


def test_zero_points_may_be_real_numbers(device: torch.device) -> None:
    given_problem = problem(4, 40, 128, 64, 4, False, device=device, real_zeros=True)
    assert_near(given_problem.product(), given_problem.exact())


def test_a_bias_is_added(device: torch.device) -> None:
    given_problem = problem(3, 50, 64, device=device)
    bias = torch.linspace(-100, 100, 50, device=device)
    assert_near(given_problem.product(bias), given_problem.exact() + bias.double())


def test_leading_dimensions_stay(device: torch.device) -> None:
    given_problem = problem(12, 10, 32, device=device)
    flat = given_problem.product()
    given_problem.x = given_problem.x.view(3, 4, 32)
    assert torch.equal(given_problem.product(), flat.view(3, 4, 10))
    given_problem.x = given_problem.x[:, 1:3]
    assert_near(given_problem.product(), given_problem.exact())
    given_problem.x = given_problem.x[:0]
    assert given_problem.product().shape == (0, 2, 10)


def test_which_layers_fit() -> None:
    layer = problem(1, 4, 96, 32).layer
    assert kernels.fits(layer)
    assert kernels.fits(problem(1, 4, 13).layer)
    assert not kernels.fits(problem(1, 4, 96, 48).layer)
    assert not kernels.fits(problem(1, 4, 96, 32, bits=8).layer)
    assert not kernels.fits(RotatedLayer(layer, 0))
    shuffled = IntegerLayer(4, True, layer.codes, layer.scales, layer.zeros, layer.group_index.flip(0))
    assert not kernels.fits(shuffled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 8}, "8 bits"),
        ({"scales": torch.ones(4, 2)}, "2 groups of 96 inputs"),
        ({"x": torch.zeros(2, 96, dtype=torch.float64)}, "x and scales are torch.float64"),
        ({"zeros": torch.zeros(4, 1, dtype=torch.int32)}, "zeros are torch.int32"),
        ({"codes": torch.zeros(4, 47, dtype=torch.uint8)}, r"codes are \[4, 47\]"),
        ({"bias": torch.zeros(5)}, r"bias are \[5\]"),
    ],
    ids=["bits", "groups", "dtype", "zeros", "codes", "bias"],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    arguments = {
        "x": torch.zeros(2, 96),
        "codes": torch.zeros(4, 48, dtype=torch.uint8),
        "scales": torch.ones(4, 1),
        "zeros": None,
        "bits": 4,
    }
    with pytest.raises(ValueError, match=message):
        kernels.dequantize_matmul(**arguments | change)
