"""Batches as a pure function of (seed, step): nothing is drawn, nothing is kept, nothing needs saving.

A split of T tokens has floor((T - 1) / L) windows of L + 1 tokens, one every L tokens: neighbours share one token, the
last label of one and the first input of the next, so that every token after the first is a label once an epoch. Sample
number s (step * batch + place) is window `permute(s mod windows)` of epoch `s div windows`, under a key made of seed
and epoch: without replacement within an epoch, another order in each.

The permutation is a balanced Feistel network (Luby and Rackoff 1988) on the next power of four, made to fit by cycle
walking (Black and Rogaway 2002), with the finalizer of SplitMix64 (Steele, Lea and Flood 2014) as round function.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream

NO_BATCHES = hashlib.sha256().hexdigest()
_ROUNDS = 8


def permute(index: np.ndarray, size: int, key: int) -> np.ndarray:  # [n] -> [n] int64
    """Map places to places by a bijection of [0, size) that `key` (64 bits) picks; O(1) memory, vectorized.

    Raises:
        IndexError: if a place is not in [0, size).
    """
    places = np.asarray(index, np.int64)
    if places.size and not 0 <= places.min() <= places.max() < size:
        raise IndexError(f"places must lie in [0, {size})")
    half = max((size - 1).bit_length() + 1, 2) // 2
    keys = np.frombuffer(hashlib.blake2b(key.to_bytes(8, "little"), digest_size=8 * _ROUNDS).digest(), "<u8")
    images = _feistel(places.astype(np.uint64), keys, half)
    # Each cycle leads back into [0, size), which is more than a quarter of the network's places: the walk is short.
    while (outside := images >= size).any():
        images[outside] = _feistel(images[outside], keys, half)
    return images.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:  # [n] uint64 -> [n] uint64
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(values: np.ndarray) -> np.ndarray:  # [n] uint64 -> [n] uint64
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def places_of(step: int, batch: int, size: int, seed: int) -> np.ndarray:  # [batch] int64
    """Return which of `size` samples make up the batch of `step`, each once an epoch, in another order in each."""
    samples = step * batch + np.arange(batch)
    epochs, places = np.divmod(samples, size)
    chosen = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = permute(places[here], size, epoch_key(seed, int(epoch)))
    return chosen


def epoch_key(seed: int, epoch: int) -> int:
    """Return the key, 64 bits, of the permutation of an epoch."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Batches:
    """The batches of a training run; steps count from 0.

    Raises:
        CoolbitsError: if the stream is too short for one window.
    """

    stream: TokenStream
    sequence_length: int
    batch_sequences: int
    seed: int

    def __post_init__(self) -> None:
        if not self.windows_per_epoch:
            raise CoolbitsError(
                f"sequence_length: {self.sequence_length} needs {self.sequence_length + 1} tokens, but the shards hold "
                f"{self.stream.tokens}"
            )

    @property
    def windows_per_epoch(self) -> int:
        """How many windows the stream has."""
        return max(self.stream.tokens - 1, 0) // self.sequence_length

    def windows(self, step: int) -> np.ndarray:  # [batch] int64
        """Return which windows make up the batch of `step`."""
        return places_of(step, self.batch_sequences, self.windows_per_epoch, self.seed)

    def batch(self, step: int) -> np.ndarray:  # [batch, sequence_length + 1] int64
        """Return the tokens of the batch of `step`: inputs are all but the last column, labels all but the first."""
        starts = self.windows(step) * self.sequence_length
        rows = [self.stream.read(start, start + self.sequence_length + 1) for start in starts.tolist()]
        return np.stack(rows).astype(np.int64)


def roll_digest(previous: str, batch: np.ndarray) -> str:
    """Return the rolling SHA-256 (hex) after one more batch; before the first it is `NO_BATCHES`.

    Equal digests mean equal tokens in equal order, whatever integer type the batches had.
    """
    digest = hashlib.sha256(bytes.fromhex(previous))
    digest.update(repr(batch.shape).encode())
    digest.update(batch.astype("<u4").tobytes())
    return digest.hexdigest()
