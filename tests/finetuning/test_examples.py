"""Conversations on the disk and in batches: nothing is lost, padding is marked, each is seen once an epoch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.finetuning.encoding import Example
from coolbits.finetuning.examples import IGNORED, Examples, pad, read_examples, steps_per_epoch, write_examples

lengths = st.lists(st.integers(2, 9), min_size=1, max_size=12)


def example(length: int, first: int = 0) -> Example:
    """A conversation of consecutive tokens, of which the second half is learned."""
    return Example(np.arange(first, first + length, dtype=np.int32), np.arange(length) >= length - length // 2)


def joined(found: list[Example]) -> Examples:
    starts = np.cumsum([0, *(len(each.tokens) for each in found)])
    return Examples(
        np.concatenate([each.tokens for each in found]), np.concatenate([each.learned for each in found]), starts
    )


@settings(deadline=None)
@given(lengths)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    out = tmp_path_factory.mktemp("examples")
    made = [example(length, 10 * place) for place, length in enumerate(lengths)]
    write_examples(made, "train", out)
    found = read_examples(out, "train")
    assert len(found) == len(made)
    for own, given_ in zip(made, (found[index] for index in range(len(found))), strict=True):
        assert own.tokens.tolist() == given_.tokens.tolist() and own.learned.tolist() == given_.learned.tolist()


@settings(deadline=None)
@given(lengths)
def test_a_batch_has_every_token_once_and_marks_padding(lengths: list[int]) -> None:
    made = [example(length, 10 * place + 1) for place, length in enumerate(lengths)]
    batch = pad(made)
    assert batch.tokens.shape == batch.attended.shape == batch.labels.shape == (len(lengths), max(lengths))
    assert batch.learned == sum(each.learned.sum() for each in made)
    for row, each in enumerate(made):
        real = batch.attended[row].astype(bool)
        assert real.tolist() == [True] * len(each.tokens) + [False] * (max(lengths) - len(each.tokens))
        assert batch.tokens[row][real].tolist() == each.tokens.tolist()
        learned = batch.labels[row] != IGNORED
        assert batch.labels[row][learned].tolist() == each.tokens[each.learned].tolist()
        assert not (learned & ~real).any()


@settings(deadline=None)
@given(count=st.integers(1, 30), size=st.integers(1, 9), seed=st.integers(0, 3))
def test_each_conversation_is_seen_once_an_epoch(count: int, size: int, seed: int) -> None:
    examples = joined([example(3, 10 * place) for place in range(count)])
    steps = steps_per_epoch(count, size)
    for epoch in range(2):
        batches = [examples.batch(epoch * steps + step, size, seed) for step in range(steps)]
        seen = [int(tokens[0]) // 10 for batch in batches for tokens in batch.tokens]
        assert sorted(seen) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    examples = joined([example(3, 10 * place) for place in range(20)])
    orders = {tuple(examples.batch(step, 20, seed).tokens[:, 0].tolist()) for step in (0, 1) for seed in (0, 1)}
    assert len(orders) == 4


def test_the_order_of_a_seed_is_the_same_for_ever() -> None:
    """Recipes name the seed. Batches of the first epoch and its short last one, of the second, and of another seed."""
    examples = joined([example(3, 10 * place) for place in range(20)])
    found = [examples.batch(step, 8, seed).tokens[:, 0] // 10 for step, seed in ((0, 0), (2, 0), (3, 0), (0, 1))]
    assert [rows[:4].tolist() for rows in found] == [[7, 10, 0, 16], [6, 1, 5, 2], [12, 9, 15, 14], [11, 12, 18, 10]]


def test_longest_go_first_where_the_order_is_free() -> None:
    examples = joined([example(length) for length in (3, 9, 5, 9)])
    assert examples.in_order(3) == [[1, 3, 2], [0]]
    assert examples.longest == 9


def test_equals_stay_in_their_order() -> None:
    examples = joined([example(3 + number % 2) for number in range(1000)])
    assert examples.in_order(500) == [list(range(1, 1000, 2)), list(range(0, 1000, 2))]


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoolbitsError, match=r"validation\.parquet: no such file"):
        read_examples(tmp_path, "validation")
