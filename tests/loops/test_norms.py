"""Norms of tensors as one vector, however large one of them is, and gradients clipped to them."""

import math

import pytest
import torch
from torch import nn

from coolbits.loops.norms import clip_gradients, l2_norm


def test_the_norm_is_that_of_all_tensors_as_one_vector() -> None:
    tensors = [nn.Parameter(torch.full((2, 3), 2.0)), torch.tensor([5.0]), torch.full((4, 6), 3.0).T]
    norm = l2_norm(tensors)
    assert norm.item() == pytest.approx((6 * 4 + 25 + 24 * 9) ** 0.5)
    assert not norm.requires_grad


@pytest.mark.parametrize("limit", [1.0, math.inf])
def test_a_table_of_eight_million_numbers_has_its_norm_and_is_clipped_by_it(limit: float) -> None:
    """PyTorch adds up all squares of a tensor in float32, which on a CPU takes 2e-4 off this norm."""
    table, unused = nn.Parameter(torch.zeros(1 << 11, 1 << 12)), nn.Parameter(torch.zeros(3))
    table.grad = torch.rand(1 << 12, generator=torch.Generator().manual_seed(0)).repeat(1 << 11, 1)
    exact = math.sqrt(float(table.grad.double().square().sum()))
    assert clip_gradients([table, unused], limit).item() == pytest.approx(exact, rel=1e-5)
    assert float(table.grad.double().square().sum()) ** 0.5 == pytest.approx(min(limit, exact), rel=1e-5)
