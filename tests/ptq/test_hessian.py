import pytest
import torch

from coolbits.ptq.hessian import HessianSum, factorize
from coolbits.study.recipes.methods import GPTQ, Grid

NATURAL = GPTQ(grid=Grid(bits=3), order="natural")
CPU = torch.device("cpu")


def spectrum(*eigenvalues: float) -> torch.Tensor:
    """Return a symmetric matrix of these eigenvalues with no structure in its entries."""
    generator = torch.Generator().manual_seed(0)
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T


def test_the_hessian_is_twice_the_mean_outer_product() -> None:
    vectors = torch.randn(7, 5, 3)
    total = HessianSum(3, CPU, torch.float64)
    total.add(vectors[:4])
    total.add(vectors[4:])
    flat = vectors.reshape(-1, 3).double()
    torch.testing.assert_close(total.hessian(), 2 * flat.T @ flat / 35)


def test_the_order_of_samples_does_not_matter() -> None:
    vectors = torch.randn(64, 8)
    hessians = []
    for order in (torch.arange(64), torch.randperm(64)):
        total = HessianSum(8, CPU, torch.float64)
        for chunk in vectors[order].split(16):
            total.add(chunk)
        hessians.append(total.hessian())
    torch.testing.assert_close(*hessians, rtol=1e-14, atol=1e-14)


def test_the_factor_is_the_cholesky_factor_of_the_inverse() -> None:
    hessian = spectrum(0.1, 0.5, 1.0, 4.0)
    factor = factorize(hessian, NATURAL)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(4, dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(factor.spread, upper / upper.diagonal()[:, None])
    assert (factor.attempts, factor.damping, factor.reason) == (1, 0.01, None)


def test_activation_order_is_by_falling_diagonal_with_dead_inputs_last() -> None:
    hessian = torch.diag(torch.tensor([2.0, 0.0, 5.0, 3.0], dtype=torch.float64))
    factor = factorize(hessian, GPTQ(grid=Grid(bits=3)))
    assert factor.order.tolist() == [2, 3, 0, 1]
    assert factor.dead.tolist() == [False, True, False, False]


def test_group_aware_order_is_by_falling_diagonal_among_groups_and_inside_them() -> None:
    diagonal = torch.diag(torch.tensor([1.0, 2.0, 9.0, 4.0, 3.0, 8.0], dtype=torch.float64))
    recipe = GPTQ(grid=Grid(bits=3, group_size=2), order="group-aware")
    assert factorize(diagonal, recipe).order.tolist() == [2, 3, 5, 4, 1, 0]


@pytest.mark.parametrize("eigenvalues", [(1.0, 1.0, 1.0), (0.1, 0.5, 1.0, 4.0), (1e-6, 1.0, 2.0, 1000.0)])
def test_the_condition_is_estimated_from_below(eigenvalues: tuple[float, ...]) -> None:
    hessian = spectrum(*eigenvalues)
    values = torch.linalg.eigvalsh(hessian) + 0.01 * hessian.diagonal().mean()
    exact, found = float(values[-1] / values[0]), factorize(hessian, NATURAL).condition
    assert found is not None
    assert 0.8 * exact <= found <= exact * (1 + 1e-9)
    assert found == factorize(hessian, NATURAL).condition


def test_the_condition_of_a_wide_layer_is_right_within_a_factor_of_two() -> None:
    vectors = torch.randn(512, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors *= torch.logspace(0, -3, 256, dtype=torch.float64)
    hessian = 2 * vectors.T @ vectors / 512
    values = torch.linalg.eigvalsh(hessian) + 0.01 * hessian.diagonal().mean()
    found = factorize(hessian, NATURAL).condition
    assert found is not None
    assert 0.5 < found / float(values[-1] / values[0]) <= 1 + 1e-9


def test_each_failed_factorization_raises_the_damping_and_is_counted() -> None:
    # The mean diagonal is 1, so that damping must exceed 0.0165 to lift the negative eigenvalue above zero.
    hessian = spectrum(-0.0165, 1.0, 1.0, 2.0165)
    factor = factorize(hessian, NATURAL)
    assert factor.attempts == 4
    assert factor.damping == pytest.approx(0.0175)
    assert factor.spread is not None


def test_damping_may_accumulate_over_attempts() -> None:
    # 0.01, then 0.0125 of a mean that has become 1.01: 0.022625 in all, which lifts -0.021 above zero.
    hessian = spectrum(-0.021, 1.0, 1.0, 2.021)
    factor = factorize(hessian, NATURAL.model_copy(update={"damping_accumulates": True}))
    assert factor.attempts == 2
    assert factor.damping == pytest.approx(0.022625)
    assert factorize(hessian, NATURAL).attempts == 6
    assert factor.spread is not None
    damped = hessian + factor.damping * torch.eye(4, dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(factor.spread, upper / upper.diagonal()[:, None])


def test_a_hessian_in_float32_is_summed_and_factorized_in_it() -> None:
    vectors = torch.randn(512, 96, generator=torch.Generator().manual_seed(0))
    found = {}
    for precision in (torch.float32, torch.float64):
        total = HessianSum(96, CPU, precision)
        total.add(vectors)
        hessian = total.hessian()
        factor = factorize(hessian, NATURAL)
        assert factor.spread is not None
        assert (hessian.dtype, factor.spread.dtype) == (precision, precision)
        found[precision] = hessian.double(), factor.spread.double()
    for rough, exact in zip(found[torch.float32], found[torch.float64], strict=True):
        assert 0 < float((rough - exact).norm() / exact.norm()) < 1e-5


def test_the_ladder_ends_with_a_reason() -> None:
    factor = factorize(spectrum(-1.0, 1.0, 2.0, 2.0), NATURAL.model_copy(update={"damping_attempts": 3}))
    assert (factor.spread, factor.attempts) == (None, 3)
    assert factor.reason == "the damped Hessian is not positive definite"


@pytest.mark.parametrize(
    ("hessian", "reason"),
    [
        (torch.full((3, 3), torch.nan, dtype=torch.float64), "not finite"),
        (torch.zeros(3, 3, dtype=torch.float64), "no calibration input"),
    ],
)
def test_a_hessian_that_says_nothing_is_named(hessian: torch.Tensor, reason: str) -> None:
    factor = factorize(hessian, NATURAL)
    assert factor.spread is None
    assert reason in str(factor.reason)


def test_duplicate_inputs_are_handled_by_damping() -> None:
    vectors = torch.randn(32, 4, dtype=torch.float64)[:, [0, 1, 2, 3, 0, 1]]
    assert factorize(2 * vectors.T @ vectors / 32, NATURAL).spread is not None


def test_a_hessian_in_bfloat16_is_why_hessians_are_gathered_outside_autocast() -> None:
    vectors = torch.randn(512, 64, dtype=torch.float64) * torch.logspace(0, -3, 64, dtype=torch.float64)
    vectors = vectors @ torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))[0]
    hessian = 2 * vectors.T @ vectors / 512
    weakly_damped = NATURAL.model_copy(update={"damping": 1e-5, "damping_attempts": 1})
    assert factorize(hessian, weakly_damped).spread is not None
    assert factorize(hessian.bfloat16().double(), weakly_damped).spread is None
