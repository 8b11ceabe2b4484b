"""Held-out loss: mean token cross-entropy over windows of the validation stream, kept a document."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream
from coolbits.models.blocks import most_positions
from coolbits.study.recipes.evaluation import Loss

_TOKENS_AT_ONCE = 1 << 22


def document_losses(model: nn.Module, stream: TokenStream, recipe: Loss) -> pd.DataFrame:
    """Return the columns document (int), tokens (int) and nats (float64): sums over the scored tokens of a document.

    Each window gives `sequence_length` predictions. A document ends with its end-of-text token; a token counts to the
    document it lies in, the documents of the stream numbered from 0; documents without a scored token are left out.
    Batches depend on the recipe and the stream alone, so a base model and its quantized forms see the same ones.
    Logits and their softmax are float32, sums over documents float64.

    Raises:
        CoolbitsError: as `window_starts` and `demand_positions`.
    """
    demand_positions(model, recipe.sequence_length)
    starts = window_starts(stream.tokens, recipe.windows, recipe.sequence_length)
    nats = np.concatenate(list(_batch_losses(model, stream, starts, recipe)))  # [windows, sequence_length]
    scored = starts[:, None] + 1 + np.arange(recipe.sequence_length)  # [windows, sequence_length]
    document = document_numbers(stream, scored.ravel())
    found, row = np.unique(document, return_inverse=True)
    sums = {"tokens": np.bincount(row), "nats": np.bincount(row, weights=nats.ravel())}
    return pd.DataFrame({"document": found, **sums})


def summarize(losses: pd.DataFrame, bytes_per_token: float) -> dict[str, float | int | bool | None]:
    """Return loss (nats a token), tokens, documents and bits_per_byte; a loss that JSON cannot hold becomes None.

    `bytes_per_token` is that of the validation documents. `non_finite` is there, and true, only for such a loss.
    """
    tokens = int(losses["tokens"].sum())
    loss = float(losses["nats"].sum(skipna=False)) / tokens
    counts = {"tokens": tokens, "documents": len(losses)}
    if not math.isfinite(loss):
        return {"loss": None, **counts, "bits_per_byte": None, "non_finite": True}
    return {"loss": loss, **counts, "bits_per_byte": loss / math.log(2) / bytes_per_token}


def window_starts(tokens: int, windows: int, sequence_length: int) -> NDArray[np.int64]:
    """Return the first position of each window: evenly spaced, never overlapping, all there are if there are fewer.

    A window reads `sequence_length + 1` tokens and predicts all but the first.

    Raises:
        CoolbitsError: if the stream is shorter than one window.
    """
    available = (tokens - 1) // sequence_length
    if available < 1:
        raise CoolbitsError(
            f"measure.sequence_length: found {sequence_length}, but the corpus has {tokens} validation tokens; "
            f"at most {max(tokens - 1, 0)} is possible"
        )
    scored = min(windows, available)
    return np.arange(scored, dtype=np.int64) * available // scored * sequence_length


def demand_positions(model: nn.Module, sequence_length: int) -> None:
    """Refuse windows longer than the positions that a model has; rotations go on for ever.

    Raises:
        CoolbitsError: if there are too few.
    """
    positions = most_positions(model)
    if positions is not None and sequence_length > positions:
        raise CoolbitsError(
            f"measure.sequence_length: found {sequence_length}, but the model has no more than {positions} positions"
        )


def document_numbers(stream: TokenStream, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each position, how many documents ended before it. Reads the stream in pieces."""
    stop = int(positions.max())
    ends = [
        start + np.flatnonzero(stream.read(start, min(start + _TOKENS_AT_ONCE, stop)) == stream.end_of_text_id)
        for start in range(0, stop, _TOKENS_AT_ONCE)
    ]
    return np.searchsorted(np.concatenate(ends), positions, side="left").astype(np.int64)


@torch.inference_mode()
def _batch_losses(
    model: nn.Module, stream: TokenStream, starts: NDArray[np.int64], recipe: Loss
) -> Iterator[NDArray[np.float32]]:
    device = next(model.parameters()).device
    model.eval()
    for first in range(0, len(starts), recipe.batch_size):
        batch = starts[first : first + recipe.batch_size].tolist()
        windows = np.stack([stream.read(start, start + recipe.sequence_length + 1) for start in batch])
        tokens = torch.from_numpy(windows.astype(np.int64)).to(device)  # [batch, sequence_length + 1]
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        yield _cross_entropy(logits, tokens[:, 1:]).cpu().numpy()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -log softmax(logits)[target] in float32, shape [batch, length], for logits [batch, length, vocabulary]."""
    losses = nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return losses.view_as(targets)
