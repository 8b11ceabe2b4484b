"""The loss on the tokens that are learned, in training and in validation."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from coolbits.finetuning.examples import IGNORED, Batch, Examples
from coolbits.study.recipes.training import Precision


def accumulate_gradient(model: PreTrainedModel, batch: Batch, precision: Precision, rows: int | None) -> Tensor:
    """Add the gradient of the batch's mean loss to the parameters; return that loss (nats a learned token, detached).

    `rows` are the conversations of one forward pass, null all. Every learned token weighs the same, whatever the length
    of its answer and whichever pass it is in.
    """
    shares = []
    for part in split_rows(batch, rows):
        logits, labels = _predict(model, part, precision)
        share = functional.cross_entropy(logits, labels, reduction="sum") / batch.learned
        share.backward()
        shares.append(share.detach())
    return torch.stack(shares).sum()


@torch.inference_mode()
def validate(model: PreTrainedModel, examples: Examples, precision: Precision, rows: int) -> dict[str, float]:
    """Score all conversations, `rows` at a time.

    Returns:
        `loss`, nats a learned token; `exact`, the share of conversations of which every learned token is the most
        probable one; `tokens`, how many are learned.
    """
    nats, exact, tokens = 0.0, 0, 0
    for numbers in examples.in_order(rows):
        batch = examples.padded(numbers)
        logits, labels = _predict(model, batch, precision)
        nats += functional.cross_entropy(logits, labels, reduction="sum").item()
        hits = (logits.argmax(-1) == labels).cpu().numpy()
        learned = batch.labels != IGNORED
        tokens += len(hits)
        exact += int(np.logical_and.reduceat(hits, np.cumsum([0, *learned.sum(1)[:-1]])).sum())
    return {"loss": nats / tokens, "exact": exact / len(examples), "tokens": tokens}


def split_rows(batch: Batch, rows: int | None) -> list[Batch]:
    """Return the batch in parts of at most `rows` conversations, each cut to its own longest."""
    parts = []
    for start in range(0, len(batch.tokens), rows or len(batch.tokens)):
        here = slice(start, start + (rows or len(batch.tokens)))
        longest = int(batch.attended[here].sum(1).max())
        parts.append(Batch(*(array[here, :longest] for array in (batch.tokens, batch.attended, batch.labels))))
    return parts


def _predict(model: PreTrainedModel, batch: Batch, precision: Precision) -> tuple[Tensor, Tensor]:
    """Return the logits from which the learned tokens are predicted [learned, vocabulary], float32, and those tokens.

    Under "bfloat16" matrix products run in bfloat16 by autocast; weights stay as they are.
    """
    device = next(model.parameters()).device
    tokens, attended, labels = (
        torch.from_numpy(array).to(device) for array in (batch.tokens, batch.attended, batch.labels)
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(input_ids=tokens, attention_mask=attended, use_cache=False).logits
    following = labels[:, 1:]  # the token at a place is predicted from the place before it
    learned = following != IGNORED
    return logits[:, :-1][learned].float(), following[learned]
