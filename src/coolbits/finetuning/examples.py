"""Encoded conversations on the disk, and batches of them: a pure function of (seed, step)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data import Split
from coolbits.data.batches import epoch_key, permute
from coolbits.finetuning.encoding import Example

IGNORED = -100  # the label that cross-entropy leaves out
_PADDING = 0  # any token: nothing attends to it and it is no label


@dataclass(frozen=True)
class Batch:
    """Conversations padded at their ends to the longest: each array is [conversations, longest], int64.

    `attended` is 1 for a conversation's own tokens and 0 for padding. `labels` are the tokens to be learned, each at
    its own place, and `IGNORED` elsewhere.
    """

    tokens: np.ndarray
    attended: np.ndarray
    labels: np.ndarray

    @property
    def learned(self) -> int:
        """How many tokens are learned."""
        return int((self.labels != IGNORED).sum())


def pad(examples: Sequence[Example]) -> Batch:
    """Put conversations into one batch."""
    shape = len(examples), max(len(example.tokens) for example in examples)
    tokens, attended, labels = (np.full(shape, fill, np.int64) for fill in (_PADDING, 0, IGNORED))
    for row, example in enumerate(examples):
        length = len(example.tokens)
        tokens[row, :length] = example.tokens
        attended[row, :length] = 1
        labels[row, :length][example.learned] = example.tokens[example.learned]
    return Batch(tokens, attended, labels)


@dataclass(frozen=True)
class Examples:
    """Conversations one behind the other: those from `starts[i]` to `starts[i + 1]` are conversation `i`'s tokens."""

    tokens: np.ndarray  # [tokens] int32
    learned: np.ndarray  # [tokens] bool
    starts: np.ndarray  # [conversations + 1] int64

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> Example:
        span = slice(self.starts[index], self.starts[index + 1])
        return Example(self.tokens[span], self.learned[span])

    @property
    def longest(self) -> int:
        """Tokens of the longest conversation."""
        return int(np.diff(self.starts).max())

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """Return the batch of update `step`, from 0: each conversation once an epoch, the epoch's last batch short."""
        epoch, place = divmod(step, steps_per_epoch(len(self), size))
        places = np.arange(place * size, min((place + 1) * size, len(self)))
        return self.padded(permute(places, len(self), epoch_key(seed, epoch)).tolist())

    def padded(self, numbers: Sequence[int]) -> Batch:
        """Return the conversations of these numbers as one batch."""
        return pad([self[number] for number in numbers])

    def in_order(self, size: int) -> list[list[int]]:
        """Return the conversations' numbers in batches of `size`, longest first: a batch has little padding."""
        order = np.argsort(-np.diff(self.starts), kind="stable").tolist()
        return [order[start : start + size] for start in range(0, len(order), size)]


def steps_per_epoch(examples: int, batch_examples: int) -> int:
    """Return how many batches an epoch has."""
    return -(-examples // batch_examples)


def write_examples(examples: Sequence[Example], split: Split, out: Path) -> None:
    """Write `SPLIT.parquet`: columns `tokens` (list of int32) and `learned` (list of bool), a row a conversation."""
    starts = np.cumsum([0, *(len(example.tokens) for example in examples)], dtype=np.int32)
    columns = {
        "tokens": pa.array(np.concatenate([example.tokens for example in examples]), pa.int32()),
        "learned": pa.array(np.concatenate([example.learned for example in examples]), pa.bool_()),
    }
    lists = {name: pa.ListArray.from_arrays(pa.array(starts), values) for name, values in columns.items()}
    pq.write_table(pa.table(lists), out / f"{split}.parquet", compression="zstd")


def read_examples(directory: Path, split: Split) -> Examples:
    """Read what `write_examples` wrote.

    Raises:
        CoolbitsError: if there is no such file, or it cannot be read.
    """
    path = directory / f"{split}.parquet"
    try:
        table = pq.read_table(path, columns=["tokens", "learned"]).combine_chunks()
    except FileNotFoundError:
        raise CoolbitsError(f"{path}: no such file; conversations have one for each split") from None
    except (pa.ArrowException, OSError) as error:  # a damaged page is the latter
        reason = " ".join(str(error).split())
        raise CoolbitsError(f"{path}: not readable as conversations ({reason})") from None
    tokens, learned = (table.column(name).combine_chunks() for name in ("tokens", "learned"))
    flat = learned.flatten().to_numpy(zero_copy_only=False)
    return Examples(tokens.flatten().to_numpy(), flat, tokens.offsets.to_numpy().astype(np.int64))
