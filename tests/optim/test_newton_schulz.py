import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.optim.newton_schulz import COEFFICIENTS, orthogonalize


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def oracle(matrix: torch.Tensor, steps: int = 5) -> np.ndarray:
    """The same map on the singular values alone, in float64: p(s) = a s + b s³ + c s⁵, five times."""
    a, b, c = COEFFICIENTS
    array = matrix.double().numpy()
    left, values, right = np.linalg.svd(array / (np.linalg.norm(array) + 1e-7), full_matrices=False)
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    return left @ np.diag(values) @ right


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8), (1, 5), (5, 1)])
def test_it_equals_the_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = gaussian(*shape, dtype=torch.float64)
    result = orthogonalize(matrix, dtype=torch.float64)
    np.testing.assert_allclose(result.numpy(), oracle(matrix), atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_lower_precision_stays_near_the_oracle(dtype: torch.dtype, tolerance: float) -> None:
    matrix = gaussian(64, 192)
    expected = oracle(matrix)
    error = np.linalg.norm(orthogonalize(matrix, dtype=dtype).numpy() - expected) / np.linalg.norm(expected)
    assert error < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 256), (256, 64), (48, 96)])
def test_singular_values_of_a_gaussian_end_near_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    values = torch.linalg.svdvals(orthogonalize(gaussian(*shape), dtype=dtype))
    assert values.min() > 0.6 and values.max() < 1.3


def test_a_batch_gives_what_its_matrices_give_alone() -> None:
    batch = gaussian(2, 3, 16, 8)
    together = orthogonalize(batch, dtype=torch.float32)
    alone = torch.stack([torch.stack([orthogonalize(m, dtype=torch.float32) for m in row]) for row in batch])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_shape_and_dtype_are_those_of_the_input() -> None:
    result = orthogonalize(gaussian(3, 12, 4), dtype=torch.bfloat16)
    assert result.shape == (3, 12, 4) and result.dtype == torch.float32


def test_the_input_is_left_alone() -> None:
    matrix = gaussian(8, 16)
    before = matrix.clone()
    orthogonalize(matrix)
    assert torch.equal(matrix, before)


def test_zeros_stay_zeros() -> None:
    assert torch.equal(orthogonalize(torch.zeros(4, 6)), torch.zeros(4, 6))


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_scale_does_not_matter_and_transposing_commutes(rows: int, columns: int, scale: float, seed: int) -> None:
    matrix = gaussian(rows, columns, seed=seed, dtype=torch.float64)
    result = orthogonalize(matrix, dtype=torch.float64)
    torch.testing.assert_close(orthogonalize(scale * matrix, dtype=torch.float64), result, rtol=0, atol=1e-2)
    torch.testing.assert_close(orthogonalize(matrix.mT, dtype=torch.float64), result.mT, rtol=0, atol=1e-9)
