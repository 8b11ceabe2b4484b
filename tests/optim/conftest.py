from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from coolbits.optim.codecs import Float32
from coolbits.optim.optimizer import Group, Optimizer, Rule

# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("coolbits", deadline=None)
settings.load_profile("coolbits")


def optimizer_of(rule: Rule, parameters: dict[str, nn.Parameter]) -> Optimizer:
    """One group, all states in float32."""
    codecs = {state: Float32() for state in rule.states}
    return Optimizer([Group(rule, parameters, codecs)])


@pytest.fixture
def single_rule() -> Callable[[Rule, dict[str, nn.Parameter]], Optimizer]:
    return optimizer_of


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """A few weights of several shapes, two of them equal, one the transpose of those."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(8, 24), (24, 8), (8, 24), (16, 16)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.fixture
def random_tensors() -> Callable[..., list[Tensor]]:
    return tensors
