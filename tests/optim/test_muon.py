import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coolbits.optim import muon
from coolbits.optim.muon import Muon, update_scale
from coolbits.optim.newton_schulz import COEFFICIENTS
from coolbits.optim.optimizer import Optimizer, Rule

LR, MOMENTUM, DECAY = 1e-2, 0.95, 0.1
Build = Callable[[Rule, dict[str, nn.Parameter]], Optimizer]
Tensors = Callable[..., list[Tensor]]


def rule(**changes: object) -> Muon:
    settings = {"momentum": MOMENTUM, "nesterov": False, "newton_schulz_steps": 5, "scale": "match_rms_adamw"}
    return Muon(**settings | {"weight_decay": DECAY, "dtype": torch.float32} | changes)


def train(build: Build, muon_rule: Muon, tensors: Tensors, steps: int) -> list[nn.Parameter]:
    weights = [nn.Parameter(tensor) for tensor in tensors(0)]
    optimizer = build(muon_rule, {str(i): w for i, w in enumerate(weights)})
    for step in range(steps):
        for weight, gradient in zip(weights, tensors(step + 1), strict=True):
            weight.grad = gradient
        optimizer.step(LR)
    return weights


def oracle(tensors: Tensors, steps: int, nesterov: bool) -> list[np.ndarray]:
    """Muon in float64 by singular value decomposition, one matrix after the other."""
    a, b, c = COEFFICIENTS
    weights = [tensor.double().numpy() for tensor in tensors(0)]
    momenta = [np.zeros_like(weight) for weight in weights]
    for step in range(1, steps + 1):
        for index, gradient in enumerate(tensor.double().numpy() for tensor in tensors(step)):
            momenta[index] = MOMENTUM * momenta[index] + gradient
            direction = MOMENTUM * momenta[index] + gradient if nesterov else momenta[index]
            left, values, right = np.linalg.svd(direction, full_matrices=False)
            values = values / (np.linalg.norm(direction) + 1e-7)
            for _ in range(5):
                values = a * values + b * values**3 + c * values**5
            update = 0.2 * math.sqrt(max(direction.shape)) * (left * values) @ right
            weights[index] = (1 - LR * DECAY) * weights[index] - LR * update
    return weights


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_equals_a_float64_oracle(single_rule: Build, random_tensors: Tensors, nesterov: bool) -> None:
    weights = train(single_rule, rule(nesterov=nesterov), random_tensors, 20)
    for weight, expected in zip(weights, oracle(random_tensors, 20, nesterov), strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_equals_torch_muon_to_bfloat16(single_rule: Build, random_tensors: Tensors, nesterov: bool) -> None:
    """torch keeps M = momentum * M + (1 - momentum) * G and iterates in bfloat16: the directions are the same."""
    ours = train(single_rule, rule(nesterov=nesterov, dtype=torch.bfloat16), random_tensors, 20)
    theirs = [nn.Parameter(tensor) for tensor in random_tensors(0)]
    reference = torch.optim.Muon(
        theirs, lr=LR, weight_decay=DECAY, momentum=MOMENTUM, nesterov=nesterov, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(20):
        for weight, gradient in zip(theirs, random_tensors(step + 1), strict=True):
            weight.grad = gradient
        reference.step()
    for mine, other, start in zip(ours, theirs, random_tensors(0), strict=True):
        assert torch.linalg.norm(mine - other) < 0.02 * torch.linalg.norm(other - start)


@pytest.mark.parametrize("scale", ["match_rms_adamw", "spectral"])
def test_singular_values_of_a_first_update_lie_in_a_band(single_rule: Build, scale: str) -> None:
    weight = nn.Parameter(torch.zeros(96, 32))
    weight.grad = torch.randn(96, 32, generator=torch.Generator().manual_seed(0))
    single_rule(rule(scale=scale, dtype=torch.bfloat16), {"w": weight}).step(1.0)
    values = torch.linalg.svdvals(weight.detach()) / update_scale(scale, 96, 32)
    assert values.min() > 0.6 and values.max() < 1.3


def test_match_rms_adamw_gives_updates_of_rms_near_a_fifth(single_rule: Build) -> None:
    for shape in [(32, 128), (128, 32), (64, 64)]:
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        single_rule(rule(), {"w": weight}).step(1.0)
        assert 0.15 < weight.detach().square().mean().sqrt() < 0.25


def test_scales_are_those_of_the_papers() -> None:
    assert update_scale("match_rms_adamw", 64, 256) == update_scale("match_rms_adamw", 256, 64) == 0.2 * 16
    assert update_scale("spectral", 256, 64) == 2.0
    assert update_scale("spectral", 64, 256) == 0.5


@pytest.mark.parametrize("scale", ["match_rms_adamw", "spectral"])
def test_a_weight_stored_transposed_gets_the_transposed_update(
    single_rule: Build, random_tensors: Tensors, scale: str
) -> None:
    plain, other = nn.Parameter(random_tensors(0)[0]), nn.Parameter(random_tensors(0)[0].T.contiguous())
    plain.grad, other.grad = random_tensors(1)[0], random_tensors(1)[0].T.contiguous()
    single_rule(rule(scale=scale), {"w": plain}).step(LR)
    single_rule(rule(scale=scale, transposed=True), {"w": other}).step(LR)
    assert torch.equal(plain, other.T)


def test_batches_of_one_change_nothing_but_rounding(
    single_rule: Build, random_tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = train(single_rule, rule(), random_tensors, 5)
    monkeypatch.setattr(muon, "_BATCH_ELEMENTS", 1)
    for one, other in zip(together, train(single_rule, rule(), random_tensors, 5), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_decay_is_decoupled(single_rule: Build) -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    single_rule(rule(), {"w": weight}).step(0.5)
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 1 - 0.5 * DECAY))
