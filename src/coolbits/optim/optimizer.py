"""An optimizer: groups of parameters, each with an update rule and a codec for every state tensor."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.optim import reference
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise, Parts, StateCodec
from coolbits.optim.muon import Muon
from coolbits.optim.sgd import SGD
from coolbits.optim.steps import Steps, update

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


@dataclass(frozen=True)
class StoredState:
    """One state of one parameter: how it is stored, of how many elements, in how many bytes."""

    parameter: str
    state: str
    label: str
    elements: int
    bytes: int


class Group:
    """Parameters updated by one rule, each of whose states is stored by one codec.

    `steps` makes the updates if all codecs are block-wise, in blocks of one size. Otherwise the rule makes them, on
    states decoded to float32.
    """

    def __init__(
        self,
        rule: Rule,
        parameters: dict[str, nn.Parameter],
        codecs: Mapping[str, StateCodec],
        steps: Steps = reference,
    ) -> None:
        self.rule = rule
        self.parameters = parameters
        self.codecs = dict(codecs)
        self._steps = steps
        self._stored = {
            state: {name: codecs[state].zeros(parameter) for name, parameter in parameters.items()}
            for state in rule.states
        }

    def step(self, gradients: list[Tensor], step: Tensor, lr: float) -> None:
        """Update weights and states; the weights get the new states as they are before they are encoded."""
        weights: list[Tensor] = list(self.parameters.values())
        blockwise = {state: codec for state, codec in self.codecs.items() if isinstance(codec, Blockwise)}
        one_size = len({codec.block_size for codec in blockwise.values()}) == 1
        if len(blockwise) == len(self.codecs) and one_size and isinstance(self.rule, Adam | SGD | Muon):
            stored: dict[str, list[Parts]] = {state: list(parts.values()) for state, parts in self._stored.items()}
            update(self._steps, self.rule, weights, gradients, stored, blockwise, step, lr)
        else:
            self._step_decoded(weights, gradients, step, lr)

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all parameters.

        Raises:
            ValueError: if one has none.
        """
        gradients = []
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                raise ValueError(f"the parameter {name} has no gradient")
            gradients.append(parameter.grad)
        return gradients

    def _step_decoded(self, weights: list[Tensor], gradients: list[Tensor], step: Tensor, lr: float) -> None:
        decoded = {
            state: [self.codecs[state].decode(parts) for parts in stored.values()]
            for state, stored in self._stored.items()
        }
        self.rule.update(weights, gradients, decoded, step, lr)
        for state, tensors in decoded.items():
            codec = self.codecs[state]
            # Unchecked, as in `steps`: a loss that is no number is judged by whoever reads it, later maybe.
            store = codec.round if isinstance(codec, Blockwise) else codec.encode
            for name, tensor in zip(self.parameters, tensors, strict=True):
                self._stored[state][name] = store(tensor)

    def states_of(self, name: str) -> dict[str, Tensor]:
        """Return the states of one parameter, decoded."""
        return {state: self.codecs[state].decode(stored[name]) for state, stored in self._stored.items()}

    def stored_states(self) -> Iterator[StoredState]:
        """Yield how each state of each parameter is stored."""
        for state, stored in self._stored.items():
            for name, parts in stored.items():
                size = sum(tensor.nbytes for tensor in parts.values())
                yield StoredState(name, state, self.codecs[state].label, self.parameters[name].numel(), size)

    def state_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the stored parts, named "<parameter>.<state>" or "<parameter>.<state>.<layout>.<part>"."""
        for state, stored in self._stored.items():
            for name, parts in stored.items():
                for part, tensor in parts.items():
                    yield ".".join(filter(None, (name, state, self.codecs[state].layout, part))), tensor


class Optimizer:
    """Updates parameters group by group; every parameter must have a gradient at each step."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        devices = [parameter.device for group in groups for parameter in group.parameters.values()]
        if not devices:
            raise ValueError("an optimizer without a parameter has nothing to update")
        self._step = torch.zeros((), dtype=torch.float32, device=devices[0])

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Make one update at the learning rate `lr`.

        Raises:
            ValueError: if a parameter has no gradient; then nothing has changed.
        """
        gradients = [group.gradients() for group in self.groups]
        self._step += 1
        for group, own in zip(self.groups, gradients, strict=True):
            group.step(own, self._step, lr)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for group in self.groups:
            for parameter in group.parameters.values():
                parameter.grad = None

    def rule_of(self, name: str) -> Rule:
        """Return the rule that updates the parameter `name`."""
        return self._group_of(name).rule

    def codecs_of(self, name: str) -> dict[str, StateCodec]:
        """Return the codec of each state of the parameter `name`."""
        return self._group_of(name).codecs

    def states_of(self, name: str) -> dict[str, Tensor]:
        """Return the states of the parameter `name` as the next update will read them: decoded, float32.

        To be read only: a state stored as float32 is the live one.
        """
        return self._group_of(name).states_of(name)

    def stored_states(self) -> list[StoredState]:
        """Return how each state of each parameter is stored; on the meta device too, where nothing is."""
        return [stored for group in self.groups for stored in group.stored_states()]

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

    def _group_of(self, name: str) -> Group:
        return next(group for group in self.groups if name in group.parameters)


def describe_states(states: Sequence[StoredState]) -> str:
    """Return one line for a log: how many states are stored how, those kept in float32 included, in how many bytes."""
    counts = Counter(state.label for state in states)
    kinds = ", ".join(f"{count} tensors {label}" for label, count in counts.most_common())
    return f"states: {kinds}, {sum(state.bytes for state in states) / 1e6:,.2f} MB"


def _difference(own: set[str], given: set[str]) -> str:
    missing, unknown = sorted(own - given), sorted(given - own)
    return "; ".join(
        f"{what} {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown))
        if names
    )
