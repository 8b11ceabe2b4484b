import pytest
import torch

from coolbits.models.rotation import rotate, rotate_back, rotation

SIZES = [1, 2, 8, 12, 64, 96, 7]


def kronecker(size: int, seed: int) -> torch.Tensor:
    """Return Q from its definition, by whole matrices."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1
    odd = size
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while odd % 2 == 0:
        hadamard = torch.kron(hadamard, torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5)
        odd //= 2
    rest, _ = torch.linalg.qr(torch.randn(odd, odd, generator=generator, dtype=torch.float64))
    return signs[:, None] * torch.kron(hadamard, rest.contiguous())


@pytest.mark.parametrize("size", SIZES)
def test_the_fast_transform_is_the_matrix_of_the_definition(size: int) -> None:
    torch.testing.assert_close(rotation(size, 3), kronecker(size, 3))


@pytest.mark.parametrize("size", SIZES)
def test_it_is_orthogonal_and_undone(size: int) -> None:
    matrix, vectors = rotation(size, 0), torch.randn(2, 5, size, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(rotate(vectors, 0), vectors @ matrix)
    torch.testing.assert_close(rotate_back(rotate(vectors, 0), 0), vectors)


def test_another_seed_gives_another_matrix() -> None:
    assert torch.equal(rotation(16, 0), rotation(16, 0))
    assert not torch.equal(rotation(16, 0), rotation(16, 1))


def test_an_outlier_is_spread_evenly() -> None:
    outlier = torch.zeros(64)
    outlier[5] = 8.0
    assert torch.equal(rotate(outlier, 0).abs(), torch.ones(64, dtype=torch.float64))
