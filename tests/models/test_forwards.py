"""Modules that compute by other functions for a while, one context inside another."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coolbits.models import forwards
from coolbits.models.forwards import fast_linears, standing_in


def test_a_module_computes_by_another_function_and_then_by_its_own_again() -> None:
    layer, inputs = nn.Linear(3, 2), torch.ones(1, 3)
    own = layer(inputs)
    with standing_in({layer: lambda hidden: hidden + 1}):
        assert torch.equal(layer(inputs), inputs + 1)
        with standing_in({layer: lambda hidden: hidden + 2}):
            assert torch.equal(layer(inputs), inputs + 2)
        assert torch.equal(layer(inputs), inputs + 1)
    assert torch.equal(layer(inputs), own)
    assert "forward" not in layer.__dict__


def test_linear_layers_make_products_the_fast_way_with_the_weights_of_the_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Tensor, ...]] = []

    def noted(*factors: Any) -> Tensor:
        made.append(factors)
        return nn.functional.linear(*factors)

    class Scaled(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return 2 * super().forward(inputs)

    monkeypatch.setattr(forwards, "linear", noted)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Scaled(4, 2))
    inputs = torch.ones(1, 3)
    with fast_linears(model.modules()):
        model[0].weight = nn.Parameter(torch.zeros(4, 3))
        found = model(inputs)
    ((read, weight, bias),) = made  # a class with a forward pass of its own keeps it
    assert read is inputs and weight is model[0].weight and bias is model[0].bias
    assert torch.equal(found, model(inputs))
