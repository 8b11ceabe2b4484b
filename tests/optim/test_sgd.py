from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from coolbits.optim.optimizer import Optimizer, Rule
from coolbits.optim.sgd import SGD

LR, MOMENTUM, DECAY = 1e-2, 0.9, 0.1


@pytest.mark.parametrize("nesterov", [False, True])
def test_it_equals_torch_with_the_decay_taken_out_of_the_gradient(
    single_rule: Callable[[Rule, dict[str, nn.Parameter]], Optimizer],
    random_tensors: Callable[..., list[Tensor]],
    nesterov: bool,
) -> None:
    ours = [nn.Parameter(tensor) for tensor in random_tensors(0)]
    theirs = [nn.Parameter(tensor.clone()) for tensor in random_tensors(0)]
    optimizer = single_rule(SGD(MOMENTUM, nesterov, DECAY), {str(i): w for i, w in enumerate(ours)})
    reference = torch.optim.SGD(theirs, lr=LR, momentum=MOMENTUM, nesterov=nesterov)
    for step in range(50):
        for mine, other, gradient in zip(ours, theirs, random_tensors(step + 1), strict=True):
            mine.grad, other.grad = gradient, gradient.clone()
        optimizer.step(LR)
        with torch.no_grad():
            torch._foreach_mul_(theirs, 1 - LR * DECAY)
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_gradients_are_left_alone(
    single_rule: Callable[[Rule, dict[str, nn.Parameter]], Optimizer], random_tensors: Callable[..., list[Tensor]]
) -> None:
    weight = nn.Parameter(random_tensors(0)[0])
    weight.grad = random_tensors(1)[0]
    single_rule(SGD(MOMENTUM, True, DECAY), {"w": weight}).step(LR)
    assert torch.equal(weight.grad, random_tensors(1)[0])
