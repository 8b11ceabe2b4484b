"""The gradient of one batch: forward and backward passes over micro batches."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# Inputs and labels [sequences, length], int64 -> summed cross-entropy [], float32, in nats.
SummedLoss = Callable[[Tensor, Tensor], Tensor]


def summed_loss(model: nn.Module, precision: Literal["bfloat16", "float32"], compiled: bool = False) -> SummedLoss:
    """Return the function (inputs, labels) -> sum over tokens of the cross-entropy in nats.

    Under "bfloat16" matrix products run in bfloat16 by autocast; weights stay as they are. Softmax and logarithm of the
    loss are always computed in float32. With `compiled`, `torch.compile` makes one program for each batch shape.
    """
    device = next(model.parameters()).device.type

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(input_ids=inputs, use_cache=False).logits  # [sequences, length, vocabulary]
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")

    program: Any = torch.compile(loss, dynamic=False) if compiled else loss
    return program


def accumulate_gradient(loss: SummedLoss, batch: Tensor, micro_batch_sequences: int | None) -> Tensor:
    """Add the gradient of the mean loss of `batch` to the parameters; return that loss (nats a token, detached).

    `batch` is [sequences, length + 1], int64. Every token weighs the same whatever the size of the micro batch it is
    in, the last and smaller one included.
    """
    tokens = batch[:, 1:].numel()
    shares = []
    for part in batch.split(micro_batch_sequences or len(batch)):
        share = loss(part[:, :-1], part[:, 1:]) / tokens
        share.backward()
        shares.append(share.detach())
    return torch.stack(shares).sum()


def l2_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Return the L2 norm of all weights taken as one vector."""
    return nn.utils.get_total_norm([parameter.detach() for parameter in parameters])
