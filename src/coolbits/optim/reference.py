"""Updates with 8-bit states in plain PyTorch, tensor by tensor: what the compiled ones and the kernels must equal.

All three decode a state, compute the new one and the new weights in float32, and encode the new state, in place; of one
tensor at a time, so that no float32 copy of all states is ever held. Encoding is unchecked, as a check would make the
host wait for the device.
"""

from torch import Tensor

from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise, Parts
from coolbits.optim.newton_schulz import gram
from coolbits.optim.sgd import SGD

__all__ = ["adam_step", "gram", "momentum_step", "sgd_step"]


def adam_step(
    weights: list[Tensor],
    gradients: list[Tensor],
    exp_avg: list[Parts],
    exp_avg_sq: list[Parts],
    codecs: tuple[Blockwise, Blockwise],
    rule: Adam,
    step: Tensor,
    lr: float,
) -> None:
    """Make one update of `rule` in place of weights, codes and scales; `step` is its number, from 1."""
    shrink, size, inverse_root = adam_factors(rule, step, lr)
    for weight, gradient, first, second in zip(weights, gradients, exp_avg, exp_avg_sq, strict=True):
        gradient = gradient.float()
        average = codecs[0].decode(first) * rule.beta1 + gradient * (1 - rule.beta1)
        square = codecs[1].decode(second) * rule.beta2 + gradient * (1 - rule.beta2) * gradient
        root = square.double().sqrt().float()  # PyTorch's square root of a float32 may be off by one bit
        weight.copy_(weight * shrink - average / (root * inverse_root + rule.eps) * size)
        _store(first, codecs[0], average)
        _store(second, codecs[1], square)


def sgd_step(
    weights: list[Tensor], gradients: list[Tensor], momenta: list[Parts], codec: Blockwise, rule: SGD, lr: float
) -> None:
    """Make one update of `rule` in place of weights, codes and scales."""
    for weight, gradient, parts in zip(weights, gradients, momenta, strict=True):
        (direction,) = momentum_step([gradient], [parts], codec, rule.momentum, rule.nesterov)
        weight.copy_(weight * (1 - lr * rule.weight_decay) - direction * lr)


def momentum_step(
    gradients: list[Tensor], momenta: list[Parts], codec: Blockwise, momentum: float, nesterov: bool
) -> list[Tensor]:
    """Update M <- momentum * M + G in place of codes and scales; return the directions, float32.

    They are momentum * M + G with `nesterov`, else M, of the new M as it is before it is encoded.
    """
    directions = []
    for gradient, parts in zip(gradients, momenta, strict=True):
        new = codec.decode(parts) * momentum + gradient
        _store(parts, codec, new)
        directions.append(new * momentum + gradient if nesterov else new)
    return directions


def adam_factors(rule: Adam, step: Tensor, lr: float) -> tuple[float, float, float]:
    """Return what is the same for all elements: 1 - lr * decay, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)."""
    number = step.item()
    return 1 - lr * rule.decay(lr), lr / (1 - rule.beta1**number), (1 - rule.beta2**number) ** -0.5


def _store(parts: Parts, codec: Blockwise, state: Tensor) -> None:
    for part, tensor in codec.round(state).items():
        parts[part].copy_(tensor)
