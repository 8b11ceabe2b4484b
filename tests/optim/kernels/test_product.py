import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

from coolbits.optim import kernels
from coolbits.optim.kernels.launch import INTERPRETED

DTYPES = [
    torch.float32,
    torch.float16,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(
            INTERPRETED, reason="Triton's interpreter multiplies the bits of bfloat16 as integers"
        ),
    ),
]


def matrices(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, device: torch.device) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def assert_near(actual: Tensor, exact: Tensor) -> None:
    """Within the rounding of the result, at the size of its largest entry; float32 sums err far less."""
    assert actual.dtype in (torch.float32, torch.float16, torch.bfloat16)
    assert (actual.double() - exact).abs().max() <= 2 * torch.finfo(actual.dtype).eps * exact.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (2, 16, 16), (3, 64, 65), (2, 65, 7), (1, 300, 40), (2, 130, 200)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def test_it_is_the_product_with_the_transpose(shape: tuple, dtype: torch.dtype, device: torch.device) -> None:
    x = matrices(*shape, dtype=dtype, device=device)
    result = kernels.gram(x)
    assert result.dtype == dtype and result.is_contiguous()
    assert_near(result, x.double() @ x.double().mT)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_symmetric_term_is_added(dtype: torch.dtype, device: torch.device) -> None:
    """As in Newton-Schulz: b A + c A² of a symmetric A."""
    a = matrices(2, 140, 140, dtype=dtype, device=device)
    a = (a + a.mT) / 20
    assert_near(kernels.gram(a, a, alpha=2.0315, beta=-4.7750), -4.7750 * a.double() + 2.0315 * a.double() @ a.double())


def test_only_half_of_the_tiles_are_computed(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from coolbits.optim.kernels import product

    grids = []

    class Counted:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            grids.append(grid)
            return lambda *arguments, **options: None

    monkeypatch.setattr(product, "_gram_kernel", Counted())
    kernels.gram(torch.zeros(3, 8 * 64, 16, device=device))
    assert grids == [(8 * 9 // 2, 3)]


@pytest.mark.parametrize("rows", [20, 70])
def test_strides_do_not_matter(rows: int, device: torch.device) -> None:
    x = matrices(2, rows, 48, device=device)
    torch.testing.assert_close(kernels.gram(x.mT.contiguous().mT), kernels.gram(x), rtol=0, atol=0)
    torch.testing.assert_close(kernels.gram(x.repeat(1, 1, 2)[:, :, ::2]), kernels.gram(x[:, :, ::2].repeat(1, 1, 2)))


def test_an_empty_batch_gives_an_empty_one(device: torch.device) -> None:
    assert kernels.gram(torch.zeros(0, 4, 5, device=device)).shape == (0, 4, 4)


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    x = matrices(1, 4, 5, device=device)
    for wrong in (x[0], x.double()):
        with pytest.raises(ValueError, match="gram takes"):
            kernels.gram(wrong)
    for add in (x, torch.zeros(1, 4, 4, dtype=torch.float16, device=device)):
        with pytest.raises(ValueError, match="add is"):
            kernels.gram(x, add)
    with pytest.raises(ValueError, match="are on meta"):
        kernels.gram(x.to("meta"))


@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 100), st.integers(1, 80), st.integers(0, 100))
def test_any_shape(device: torch.device, batch: int, rows: int, columns: int, seed: int) -> None:
    x = matrices(batch, rows, columns, seed=seed, device=device)
    add = x.new_ones(batch, rows, rows)
    assert_near(kernels.gram(x, add, alpha=0.5, beta=2.0), 0.5 * x.double() @ x.double().mT + 2)
