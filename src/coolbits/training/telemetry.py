"""Telemetry: what happens to the optimizer's states during training, measured on a sample of the tensors.

It watches and decides nothing: weights are the same bits with and without it. Beside each sampled state that is stored
in 8 bits runs a *shadow*, a float32 state updated by the same gradients and never rounded. Shadows are part of what a
training goes on from, so that the telemetry of a resumed run is that of an uninterrupted one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from coolbits.models.blocks import decoder_blocks
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import NEVER_NEGATIVE, Blockwise
from coolbits.optim.groups import Role, parameter_roles
from coolbits.optim.muon import Muon
from coolbits.optim.optimizer import Optimizer, Rule
from coolbits.optim.sgd import SGD
from coolbits.study.recipes.training import Trajectory
from coolbits.training.state_measures import MEASURES, Codec, Observed, measure

_DTYPES = {
    **{"step": "int64", "tokens": "int64", "parameter": "str", "layer": "Int64", "role": "str", "elements": "int64"},
    **{"state": "str", "rule": "str", "codec": "str", "block_size": "int64"},
    **dict.fromkeys(MEASURES, "float64"),
}
_RULES = {Adam: "adamw", SGD: "sgd", Muon: "muon"}
_NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class Watched:
    """A state that is watched: of which parameter, in which layer (None outside the blocks), by which rule, how stored.

    `block_size` is that of the recipe; a float32 state is asked what blocks of that size would do to it.
    """

    optimizer: Optimizer
    parameter: str
    tensor: nn.Parameter
    layer: int | None
    role: Role
    state: str
    codec: Codec
    block_size: int

    @property
    def name(self) -> str:
        """The state's name in files."""
        return f"{self.parameter}.{self.state}"

    @property
    def rounded(self) -> bool:
        """Whether it is stored in fewer bits than it is computed in."""
        return self.codec != "float32"

    @property
    def rule(self) -> Rule:
        """The rule that updates it."""
        return self.optimizer.rule_of(self.parameter)

    def stored(self) -> Tensor:
        """Return the state as the next update will read it, decoded."""
        return self.optimizer.states_of(self.parameter)[self.state]

    def updated(self, state: Tensor) -> Tensor:
        """Return what the rule makes of `state` and the parameter's gradient, before it is stored."""
        gradient = self.tensor.grad
        if gradient is None:
            raise ValueError(f"the parameter {self.parameter} has no gradient")
        match self.rule, self.state:
            case Adam(beta1=beta1), "exp_avg":
                return beta1 * state + (1 - beta1) * gradient
            case Adam(beta2=beta2), "exp_avg_sq":
                return beta2 * state + (1 - beta2) * gradient.square()
            case ((SGD(momentum=momentum) | Muon(momentum=momentum)), "momentum"):
                return momentum * state + gradient
            case rule, name:
                raise ValueError(f"no equation is known here for the state {name} of {type(rule).__name__}")


@dataclass
class Observer:
    """Measures the watched states around an update; by default there are none.

    `shadows` holds the shadow of every state that is rounded, by its name; `rows` what was measured since the
    trajectory's start.
    """

    watched: tuple[Watched, ...] = ()
    every_steps: int = 1
    batch_tokens: int = 0
    newton_schulz_steps: int = _NEWTON_SCHULZ_STEPS
    shadows: dict[str, Tensor] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def is_due(self, number: int) -> bool:
        """Say whether update `number` is measured: every so many, and the powers of two before the first of those.

        Rounding can end a run within its first updates.
        """
        early = number < self.every_steps and number.bit_count() == 1
        return bool(self.watched) and (early or number % self.every_steps == 0)

    @contextmanager
    def around(self, number: int) -> Iterator[None]:
        """Observe update `number`, made inside the block from the gradients that are there when it begins."""
        rounded = [state for state in self.watched if state.rounded]
        due, exact = self.is_due(number), {}
        with torch.no_grad():
            if due:
                exact = {state.name: state.updated(state.stored()) for state in rounded}
            for state in rounded:
                self.shadows[state.name] = state.updated(self.shadows[state.name])
        yield
        if due:
            with torch.no_grad():
                self.rows += [self._row(number, state, exact) for state in self.watched]

    def _row(self, number: int, state: Watched, exact: dict[str, Tensor]) -> dict[str, Any]:
        stored = state.stored()
        observed = Observed(
            exact=exact.get(state.name, stored),
            stored=stored,
            shadow=self.shadows.get(state.name, stored),
            codec=state.codec,
            signed=state.state not in NEVER_NEGATIVE,
            block_size=state.block_size,
        )
        spectral = state.role == "matrix" and observed.signed
        return {
            "step": number,
            "tokens": number * self.batch_tokens,
            "parameter": state.parameter,
            "layer": state.layer,
            "role": state.role,
            "elements": state.tensor.numel(),
            "state": state.state,
            "rule": _RULES[type(state.rule)],
            "codec": state.codec,
            "block_size": state.block_size,
        } | measure(observed, self.newton_schulz_steps if spectral else None)


def observe(recipe: Trajectory, model: PreTrainedModel, optimizer: Optimizer) -> Observer:
    """Return what gathers the telemetry of `recipe`, or an observer of nothing if it asks for none.

    A Muon's own number of Newton-Schulz steps is used, and five for the momenta of other optimizers.
    """
    if recipe.telemetry is None:
        return Observer()
    watched = tuple(
        Watched(
            optimizer=optimizer,
            parameter=name,
            tensor=model.get_parameter(name),
            layer=_layer(model, name),
            role=role,
            state=state,
            codec=codec.kind if isinstance(codec, Blockwise) else "float32",
            block_size=getattr(recipe.optimizer.states, state).block_size,
        )
        for name, role in sample(parameter_roles(model), recipe.telemetry.tensors).items()
        for state, codec in optimizer.codecs_of(name).items()
    )
    return Observer(
        watched,
        recipe.telemetry.every_steps,
        recipe.batch_tokens,
        getattr(recipe.optimizer, "newton_schulz_steps", _NEWTON_SCHULZ_STEPS),
        {state.name: torch.zeros_like(state.tensor) for state in watched if state.rounded},
    )


def sample(roles: dict[str, Role], count: int) -> dict[str, Role]:
    """Return at most `count` of a model's matrices and tables, evenly from the first to the last in its order."""
    names = [name for name, role in roles.items() if role != "vector"]
    chosen = torch.linspace(0, len(names) - 1, min(count, len(names)), dtype=torch.float64).round().int().tolist()
    return {names[index]: roles[names[index]] for index in chosen}


def telemetry_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of telemetry as the frame that is written: fixed columns and types, also when there are no rows."""
    return pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)


def _layer(model: PreTrainedModel, parameter: str) -> int | None:
    blocks = [name for name, _ in decoder_blocks(model)]
    return next((number for number, name in enumerate(blocks) if parameter.startswith(f"{name}.")), None)
