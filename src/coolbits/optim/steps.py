"""Updates with 8-bit states: which functions make them on a device, and how a rule asks for them."""

import logging
from typing import Protocol

from torch import Tensor

from coolbits.optim import compiled, reference
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise, Parts
from coolbits.optim.muon import Muon
from coolbits.optim.sgd import SGD

_LOG = logging.getLogger(__name__)


class Steps(Protocol):
    """What `reference`, `compiled` and `kernels` each offer: updates in place of weights, codes and scales.

    No element's update depends on another block: on a shard of a tensor, cut between blocks, `adam_step`, `sgd_step`
    and `momentum_step` do what they would do there on the whole. Only Newton-Schulz needs whole matrices.
    """

    def adam_step(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        exp_avg: list[Parts],
        exp_avg_sq: list[Parts],
        codecs: tuple[Blockwise, Blockwise],
        rule: Adam,
        step: Tensor,
        lr: float,
    ) -> None: ...

    def sgd_step(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        momenta: list[Parts],
        codec: Blockwise,
        rule: SGD,
        lr: float,
    ) -> None: ...

    def momentum_step(
        self, gradients: list[Tensor], momenta: list[Parts], codec: Blockwise, momentum: float, nesterov: bool
    ) -> list[Tensor]: ...

    def gram(self, x: Tensor, add: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0) -> Tensor: ...


def choose_steps(device: str, compile_cpu: bool = True) -> Steps:
    """Return the Triton kernels on a GPU that has Triton, the compiled functions on a CPU with a compiler.

    Everywhere else PyTorch's, and on a CPU without `compile_cpu`: they return the same bits as the compiled ones, more
    slowly. On a GPU a warning says so.
    """
    if device == "cuda":
        from coolbits.optim import kernels  # Triton takes a second to import

        if kernels.available():
            return kernels
        _LOG.warning("8-bit states are updated by PyTorch, hence slower: no Triton, C compiler or header of Python")
    return compiled if device == "cpu" and compile_cpu and compiled.available() else reference


def update(
    steps: Steps,
    rule: Adam | SGD | Muon,
    weights: list[Tensor],
    gradients: list[Tensor],
    states: dict[str, list[Parts]],
    codecs: dict[str, Blockwise],
    step: Tensor,
    lr: float,
) -> None:
    """Make one update of `rule` by the functions of `steps`; its states have codecs of one block size."""
    match rule:
        case Adam():
            both = codecs["exp_avg"], codecs["exp_avg_sq"]
            steps.adam_step(weights, gradients, states["exp_avg"], states["exp_avg_sq"], both, rule, step, lr)
        case SGD():
            steps.sgd_step(weights, gradients, states["momentum"], codecs["momentum"], rule, lr)
        case Muon():
            momenta, codec = states["momentum"], codecs["momentum"]

            def directions(batch: list[int]) -> list[Tensor]:
                batched = [gradients[index] for index in batch], [momenta[index] for index in batch]
                return steps.momentum_step(*batched, codec, rule.momentum, rule.nesterov)

            rule.apply(weights, directions, lr)
