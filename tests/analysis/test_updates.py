"""One update from rounded states, against arithmetic by hand and the optimizers themselves."""

import pytest
import torch

from coolbits.analysis.rounding import round_trip
from coolbits.analysis.updates import adam_next, adam_stored, momentum_next, sgd_stored
from coolbits.optim.codecs import Blockwise
from coolbits.study.recipes.analysis import Theory

LINEAR = Blockwise("linear", True, 4)


def test_a_second_moment_below_half_a_step_becomes_zero_and_its_update_explodes() -> None:
    gradient = torch.tensor([1.0, 0.5, 0.0626, 0.0630])  # s / 254 is 0.0627 squared
    found = {item.quantity: item.value for item in adam_stored(gradient, gradient.square(), LINEAR, eps=1e-8)}
    assert found["zeros"] == 0.25
    assert found["largest_change"] == pytest.approx(0.0626 / 1e-8 - 1, rel=1e-6)
    assert found["mean_squared_change"] == pytest.approx(0.25 * (0.0626 / 1e-8) ** 2, rel=1e-5)


def test_zero_gradients_are_not_counted_as_lost() -> None:
    gradient = torch.tensor([1.0, 0.0, 0.0, 0.5])
    found = {item.quantity: item.value for item in adam_stored(gradient, gradient.square(), LINEAR, eps=1e-8)}
    assert found["zeros"] == 0


def test_states_that_lie_on_the_grid_change_no_update() -> None:
    state = torch.tensor([127.0, -3.0, 64.0, 0.0])
    changes = [*sgd_stored(round_trip(state, LINEAR)), *momentum_next(round_trip(state, LINEAR), torch.ones(4), 0.9)]
    assert [item.value for item in changes] == pytest.approx([0, 0, 0], abs=1e-6)


def test_the_next_update_of_sgd_sees_the_rounding_once_by_momentum() -> None:
    state, gradient = torch.tensor([1.0, 0.3, 0.2, 0.1]), torch.tensor([0.0, 1.0, 0.0, 0.0])
    rounded = round_trip(state, LINEAR)
    (change,) = momentum_next(rounded, gradient, 0.9)
    exact = 0.9 * state.double() + gradient
    stored = 0.9 * rounded.stored + gradient
    assert change.value == pytest.approx(float((stored - exact).norm() / exact.norm()))
    assert change.bound is not None and change.value <= change.bound


def second_update(
    gradients: tuple[torch.Tensor, torch.Tensor], codecs: tuple[Blockwise, Blockwise] | None
) -> torch.Tensor:
    """The second update of the library's Adam, its states rounded after the first."""
    weight = torch.nn.Parameter(torch.zeros(gradients[0].shape, dtype=torch.float64))
    adam = torch.optim.Adam([weight], lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.double()
        adam.step()
        if codecs is not None:
            for name, codec in zip(("exp_avg", "exp_avg_sq"), codecs, strict=True):
                adam.state[weight][name] = round_trip(adam.state[weight][name].float(), codec).stored
    return before - weight.detach()


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
def test_the_next_update_of_adamw_is_that_of_the_library(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(16, 16, generator=generator), torch.randn(16, 16, generator=generator)
    codecs = Blockwise(kind, True, 64), Blockwise(kind, False, 64)
    found = {item.quantity: item.value for item in adam_next(gradients, codecs, Theory())}
    exact, rounded = second_update(gradients, None), second_update(gradients, codecs)
    assert found["relative_change"] == pytest.approx(float((rounded - exact).norm() / exact.norm()), rel=1e-3)
