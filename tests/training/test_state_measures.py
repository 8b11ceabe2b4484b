"""Measures of a stored state against float64 oracles."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coolbits.optim.newton_schulz import orthogonalize
from coolbits.training.state_measures import MEASURES, Observed, measure, relative_error

BLOCK = 32


def observed(exact: Tensor, **changes: Any) -> Observed:
    """A float32 state, changed as asked."""
    fields = {"exact": exact, "stored": exact, "shadow": exact, "codec": "float32", "signed": True, "block_size": BLOCK}
    return Observed(**fields | changes)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(values: np.ndarray, levels: int) -> np.ndarray:
    """Round each block of float64 values to `levels` steps up to its largest magnitude, and read it back."""
    blocks = values.reshape(-1, BLOCK)
    scales = np.abs(blocks).max(1, keepdims=True)
    return (np.round(blocks / scales * levels) * scales / levels).reshape(values.shape)


def test_a_float32_state_loses_nothing_and_says_what_codes_would_lose() -> None:
    state = normal(8, 16)
    measures = measure(observed(state), newton_schulz_steps=5)
    assert measures.keys() == set(MEASURES)
    lossless = ("zero_share", "rounding_error", "newton_schulz_error", "shadow_error")
    assert all(measures[name] == 0 for name in lossless)
    exact = state.double().numpy()
    expected = np.linalg.norm(linear(exact, 127) - exact) / np.linalg.norm(exact)
    assert measures["rounding_error_linear"] == pytest.approx(expected, rel=1e-4)
    assert measures["rounding_error_dynamic"] > 0
    rounded = torch.from_numpy(linear(exact, 127))
    one, other = (orthogonalize(matrix, 5, torch.float64).numpy() for matrix in (state.double(), rounded))
    turned = np.linalg.norm(other - one) / np.linalg.norm(one)
    assert measures["newton_schulz_error_linear"] == pytest.approx(turned, rel=1e-3)


def test_second_moments_below_half_a_step_are_lost_and_zeros_are_not_counted() -> None:
    gradients = normal(4, BLOCK)
    gradients[0] = 0
    squares = gradients.square()
    measures = measure(observed(squares, signed=False))
    exact = squares.double().numpy()[1:]
    lost = (linear(exact, 255) == 0).mean()
    assert 0.05 < lost < 0.5
    assert measures["zero_share_linear"] == pytest.approx(lost)
    assert measures["zero_share_dynamic"] < measures["zero_share_linear"]
    assert "condition" not in measures


def test_a_stored_state_is_judged_as_it_was_stored_and_against_its_shadow() -> None:
    exact, shadow = normal(4, BLOCK), normal(4, BLOCK, seed=1)
    stored = exact.clone()
    stored[0] = 0
    measures = measure(observed(exact, stored=stored, shadow=shadow, codec="linear"))
    assert measures["zero_share"] == measures["zero_share_linear"] == 0.25
    assert measures["rounding_error"] == measures["rounding_error_linear"] == relative_error(stored, exact)
    difference = np.linalg.norm((stored.double() - shadow.double()).numpy())
    assert measures["shadow_error"] == pytest.approx(difference / np.linalg.norm(shadow.double().numpy()), rel=1e-6)
    assert measures["rounding_error_dynamic"] == measure(observed(exact))["rounding_error_dynamic"]


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_the_norm_is_that_of_the_state_before_it_is_stored(scale: float) -> None:
    """Squares of the first and the last are no float32."""
    exact = scale * normal(4, BLOCK)
    expected = np.sqrt((exact.double().numpy() ** 2).sum())
    measures = measure(observed(exact, stored=torch.zeros_like(exact), shadow=2 * exact, codec="linear"))
    assert measures["norm"] == pytest.approx(expected, rel=1e-12)


def test_block_maxima_include_the_short_last_block() -> None:
    state = torch.full((2 * BLOCK + 3,), -1.0)
    state[BLOCK], state[-1] = 5.0, 0.5
    state[2 * BLOCK :] *= 0.1
    measures = measure(observed(state))
    found = [measures[f"block_{name}"] for name in ("min", "median", "max")]
    assert found == pytest.approx([0.1, 1.0, 5.0])


def test_the_spectrum_is_that_of_the_matrix_it_was_built_from() -> None:
    left, _ = torch.linalg.qr(normal(16, 16).double())
    right, _ = torch.linalg.qr(normal(24, 16, seed=1).double())
    singular = torch.logspace(0, -4, 16, dtype=torch.float64)
    measures = measure(observed((left * singular @ right.mT).float()), newton_schulz_steps=5)
    assert measures["sigma_max"] == pytest.approx(1, rel=1e-5)
    assert measures["sigma_min"] == pytest.approx(1e-4, rel=1e-2)
    assert measures["condition"] == pytest.approx(1e4, rel=1e-2)
    assert measures["stable_rank"] == pytest.approx(float(singular.square().sum()), rel=1e-5)
    assert measures["norm"] == pytest.approx(float(singular.square().sum().sqrt()), rel=1e-5)


def test_a_state_of_zeros_has_no_relative_measures() -> None:
    measures = measure(observed(torch.zeros(4, BLOCK), codec="dynamic"), newton_schulz_steps=5)
    undefined = ("zero_share", "rounding_error", "shadow_error", "condition", "stable_rank", "newton_schulz_error")
    assert all(math.isnan(measures[name]) for name in undefined)
    assert measures["block_max"] == measures["sigma_max"] == measures["norm"] == 0


@given(st.integers(0, 2**31), st.integers(1, 5 * BLOCK), st.sampled_from([0.0, 1e-30, 1.0, 1e30]), st.floats(0, 4))
def test_linear_codes_err_by_at_most_half_a_step(seed: int, size: int, largest: float, spread: float) -> None:
    """Each entry by s / 254, hence a block by sqrt(n) s / 254 (paper B, theorem 2); shares are shares."""
    state = normal(size, seed=seed).double().mul(spread).exp().float() * normal(size, seed=seed + 1)
    state[0] = largest or state[0]
    measures = measure(observed(state))
    norms = torch.linalg.vector_norm(state, dtype=torch.float64)
    scales = [block.abs().max() ** 2 * len(block) for block in state.double().split(BLOCK)]
    bound = math.sqrt(sum(scales)) / 254 / norms
    assert measures["rounding_error_linear"] <= bound * (1 + 1e-5)
    assert 0 <= measures["zero_share_linear"] <= 1
    assert 0 <= measures["zero_share_dynamic"] <= 1
