from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coolbits.optim.adam import Adam
from coolbits.optim.optimizer import Optimizer, Rule

BETAS, EPS, DECAY, PEAK = (0.9, 0.95), 1e-8, 0.1, 1e-2
STEPS = 50
Build = Callable[[Rule, dict[str, nn.Parameter]], Optimizer]
Tensors = Callable[..., list[Tensor]]


def rates() -> list[float]:
    """A warmup and a decay, so that no two updates have the same rate."""
    return [PEAK * min((step + 1) / 5, 1 - step / STEPS) for step in range(STEPS)]


def train(optimizer: Optimizer, weights: list[nn.Parameter], tensors: Tensors) -> None:
    for step, lr in enumerate(rates()):
        for weight, gradient in zip(weights, tensors(step + 1), strict=True):
            weight.grad = gradient
        optimizer.step(lr)


def oracle(tensors: Tensors, decay_of: Callable[[float], float]) -> list[np.ndarray]:
    """Adam with decoupled decay in float64, as the papers write it; `decay_of` gives the decay at a rate."""
    beta1, beta2 = BETAS
    weights = [tensor.double().numpy() for tensor in tensors(0)]
    first = [np.zeros_like(weight) for weight in weights]
    second = [np.zeros_like(weight) for weight in weights]
    for step, lr in enumerate(rates(), start=1):
        for index, gradient in enumerate(tensor.double().numpy() for tensor in tensors(step)):
            first[index] = beta1 * first[index] + (1 - beta1) * gradient
            second[index] = beta2 * second[index] + (1 - beta2) * gradient**2
            corrected = first[index] / (1 - beta1**step), second[index] / (1 - beta2**step)
            weights[index] = weights[index] * (1 - lr * decay_of(lr))
            weights[index] = weights[index] - lr * corrected[0] / (np.sqrt(corrected[1]) + EPS)
    return weights


def test_adamw_equals_torch_over_many_steps(single_rule: Build, random_tensors: Tensors) -> None:
    ours = [nn.Parameter(tensor) for tensor in random_tensors(0)]
    theirs = [nn.Parameter(tensor.clone()) for tensor in random_tensors(0)]
    reference = torch.optim.AdamW(theirs, lr=PEAK, betas=BETAS, eps=EPS, weight_decay=DECAY, foreach=False)
    train(single_rule(Adam(*BETAS, EPS, DECAY), {str(i): w for i, w in enumerate(ours)}), ours, random_tensors)
    for step, lr in enumerate(rates()):
        reference.param_groups[0]["lr"] = lr
        for weight, gradient in zip(theirs, random_tensors(step + 1), strict=True):
            weight.grad = gradient
        reference.step()
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("corrected_by", "decay_of"),
    [(None, lambda lr: DECAY), (PEAK, lambda lr: DECAY * lr / PEAK)],
    ids=["adamw", "adamc"],
)
def test_it_equals_a_float64_oracle(
    single_rule: Build, random_tensors: Tensors, corrected_by: float | None, decay_of: Callable[[float], float]
) -> None:
    weights = [nn.Parameter(tensor) for tensor in random_tensors(0)]
    rule = Adam(*BETAS, EPS, DECAY, corrected_by)
    train(single_rule(rule, {str(i): w for i, w in enumerate(weights)}), weights, random_tensors)
    for weight, expected in zip(weights, oracle(random_tensors, decay_of), strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=2e-5, atol=2e-6)


def test_adamc_at_the_peak_is_adamw(single_rule: Build, random_tensors: Tensors) -> None:
    results = []
    for corrected_by in (None, PEAK):
        weights = [nn.Parameter(tensor) for tensor in random_tensors(0)]
        optimizer = single_rule(Adam(*BETAS, EPS, DECAY, corrected_by), {str(i): w for i, w in enumerate(weights)})
        for weight, gradient in zip(weights, random_tensors(1), strict=True):
            weight.grad = gradient
        optimizer.step(PEAK)
        results.append(weights)
    assert all(torch.equal(plain, corrected) for plain, corrected in zip(*results, strict=True))


def test_adamc_shrinks_by_the_square_of_the_rate(single_rule: Build) -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = single_rule(Adam(*BETAS, EPS, DECAY, corrected_by=1.0), {"w": weight})
    weight.grad = torch.zeros(4, 4)
    optimizer.step(0.5)
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 1 - 0.5**2 * DECAY))
