"""An optimizer: groups of parameters, each with an update rule and a codec for every state tensor."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.optim.codecs import StateCodec

STEP = "step"


class Rule(Protocol):
    """An update rule. `states` names the state tensors it keeps a parameter, all zero at first."""

    @property
    def states(self) -> tuple[str, ...]: ...

    def update(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: dict[str, list[Tensor]],
        step: Tensor,
        lr: float,
    ) -> None:
        """Make one update, in place of `parameters` and `states`; `step` is its number, from 1, a float32 scalar."""
        ...


class Group:
    """Parameters updated by one rule. `codecs` has one codec for each parameter and state."""

    def __init__(
        self, rule: Rule, parameters: dict[str, nn.Parameter], codecs: dict[tuple[str, str], StateCodec]
    ) -> None:
        self.rule = rule
        self.parameters = parameters
        self._codecs = codecs
        self._stored = {
            (name, state): codecs[name, state].encode(torch.zeros_like(parameter, dtype=torch.float32))
            for state in rule.states
            for name, parameter in parameters.items()
        }

    def step(self, step: Tensor, lr: float) -> None:
        """Decode the states, update weights and states, encode the states."""
        weights: list[Tensor] = []
        gradients: list[Tensor] = []
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                raise ValueError(f"the parameter {name} has no gradient")
            weights.append(parameter)
            gradients.append(parameter.grad)
        decoded = {
            state: [self._codecs[name, state].decode(self._stored[name, state]) for name in self.parameters]
            for state in self.rule.states
        }
        self.rule.update(weights, gradients, decoded, step, lr)
        for state, tensors in decoded.items():
            for name, tensor in zip(self.parameters, tensors, strict=True):
                self._stored[name, state] = self._codecs[name, state].encode(tensor)

    def state_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the stored parts, named "<parameter>.<state>" or "<parameter>.<state>.<part>"."""
        for (name, state), parts in self._stored.items():
            for part, tensor in parts.items():
                yield ".".join(filter(None, (name, state, part))), tensor


class Optimizer:
    """Updates parameters group by group; every parameter must have a gradient at each step."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        device = next(parameter.device for group in groups for parameter in group.parameters.values())
        self._step = torch.zeros((), dtype=torch.float32, device=device)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Make one update at the learning rate `lr`.

        Raises:
            ValueError: if a parameter has no gradient.
        """
        self._step += 1
        for group in self.groups:
            group.step(self._step, lr)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for group in self.groups:
            for parameter in group.parameters.values():
                parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """Return everything the next update depends on beside weights and gradients: "step" and each state's parts.

        The tensors are the live ones, not copies: write them out before the next update.
        """
        return {STEP: self._step} | {name: tensor for group in self.groups for name, tensor in group.state_tensors()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave, bit for bit; nothing is cast.

        Raises:
            CoolbitsError: if a name, shape or dtype is not the one that this optimizer would have written.
        """
        own = self.state_tensors()
        if own.keys() != tensors.keys():
            raise CoolbitsError(f"optimizer state does not fit: {_difference(set(own), set(tensors))}")
        for name, tensor in own.items():
            given = tensors[name]
            if (given.shape, given.dtype) != (tensor.shape, tensor.dtype):
                raise CoolbitsError(
                    f"optimizer state {name} is {given.dtype} of shape {tuple(given.shape)}; "
                    f"this optimizer keeps {tensor.dtype} of shape {tuple(tensor.shape)}"
                )
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _difference(own: set[str], given: set[str]) -> str:
    missing, unknown = sorted(own - given), sorted(given - own)
    return "; ".join(
        f"{what} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown))
        if names
    )
