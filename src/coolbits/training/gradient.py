"""The gradient of one batch: forward and backward passes over micro batches."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from coolbits.models.blocks import decoder_blocks
from coolbits.study.recipes.training import Precision

# Inputs and labels [sequences, length], int64 -> summed cross-entropy [], float32, in nats.
SummedLoss = Callable[[Tensor, Tensor], Tensor]

# A process has a program for each shape of models and batches. Behind PyTorch's 8 nothing would be compiled, so that a
# trajectory's bits hung on what was trained before it.
_MOST_PROGRAMS = 256


def summed_loss(model: PreTrainedModel, precision: Precision, compiled: bool = False) -> SummedLoss:
    """Return the function (inputs, labels) -> sum over tokens of the cross-entropy in nats.

    Under "bfloat16" matrix products run in bfloat16 by autocast; weights stay as they are. Softmax and logarithm of the
    loss are always computed in float32. With `compiled`, `torch.compile` makes one program for all decoder blocks and
    one for the loss: as fast as one for the whole model, and ready in a tenth of the time.
    """
    device = next(model.parameters()).device.type
    ready = device == "cpu" and _only_causal(model)
    cross_entropy: Any = _cross_entropy
    if device == "cpu":
        # PyTorch's fused attention for CPUs takes three times as long in bfloat16 as plain matrix products do.
        model.set_attn_implementation("eager")
    if compiled:
        torch._dynamo.config.recompile_limit = _MOST_PROGRAMS
        for _, block in decoder_blocks(model):
            block.compile(dynamic=False)
        cross_entropy = torch.compile(cross_entropy, dynamic=False)

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        mask = _causal_mask(inputs.shape[1]) if ready else None
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits
        summed: Tensor = cross_entropy(logits, labels)
        return summed

    return loss


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


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:  # [sequences, length, vocabulary], [sequences, length]
    return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")


def _only_causal(model: PreTrainedModel) -> bool:
    # Every layer takes a mask that is given ready as it is, one with a sliding window too.
    layer_types: list[str] | None = getattr(model.config, "layer_types", None)
    return set(layer_types or ()) <= {"full_attention"}


@cache
def _causal_mask(length: int) -> Tensor:  # [1, 1, length, length]
    # Given ready, as the library would otherwise have each block work it out from positions, element by element.
    return torch.full((length, length), -torch.inf).triu(1)[None, None]
