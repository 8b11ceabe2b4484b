"""Batches are a pure function of (seed, step), and every window is used once an epoch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.batches import NO_BATCHES, Batches, permute, roll_digest
from coolbits.data.shards import TokenStream

KEYS = st.integers(0, 2**64 - 1)


def stream_of(tokens: int) -> TokenStream:
    """A stream in which every token tells its place, in two shards."""
    whole = np.arange(tokens, dtype=np.uint32)
    cut = tokens // 3
    return TokenStream((whole[:cut], whole[cut:]), (0, cut, tokens), max(tokens, 70_000), 0)


@given(st.integers(1, 3000), KEYS)
def test_a_permutation_takes_every_place_once(size, key):
    images = permute(np.arange(size), size, key)
    np.testing.assert_array_equal(np.sort(images), np.arange(size))


@given(st.integers(1, 2**40), KEYS, st.data())
def test_large_permutations_stay_inside_and_do_not_collide(size, key, data):
    places = data.draw(st.lists(st.integers(0, size - 1), unique=True, min_size=1, max_size=50))
    images = permute(np.array(places), size, key)
    assert images.min() >= 0
    assert images.max() < size
    assert len(set(images.tolist())) == len(places)


@given(st.integers(1, 3000), KEYS)
def test_a_place_does_not_depend_on_its_company(size, key):
    together = permute(np.arange(size), size, key)
    assert permute(np.array([size // 2]), size, key) == together[size // 2]


@pytest.mark.parametrize("place", [-1, 10])
def test_a_place_outside_is_an_error(place):
    with pytest.raises(IndexError, match=r"places must lie in \[0, 10\)"):
        permute(np.array([place]), 10, 0)


@pytest.mark.parametrize("size", [5, 16, 17])
def test_over_many_keys_each_place_goes_everywhere_equally_often(size):
    keys = 2000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), permute(np.arange(size), size, key)] += 1
    expected = keys / size
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    # Normal approximation of the chi-squared distribution, five standard deviations.
    assert chi_squared < freedom + 5 * math.sqrt(2 * freedom)


def test_neighbours_are_scattered():
    size = 100_000
    images = permute(np.arange(size), size, 7).astype(float)
    assert abs(np.corrcoef(images[:-1], images[1:])[0, 1]) < 5 / math.sqrt(size)
    assert abs(np.corrcoef(np.arange(size), images)[0, 1]) < 5 / math.sqrt(size)
    # A random permutation has one fixed place on average.
    assert np.count_nonzero(images == np.arange(size)) < 10


@pytest.mark.parametrize(("tokens", "windows"), [(8, 1), (9, 1), (14, 1), (15, 2), (71, 10)])
def test_windows_are_counted_so_that_each_has_its_last_label(tokens, windows):
    batches = Batches(stream_of(tokens), 7, 1, 0)
    assert batches.windows_per_epoch == (tokens - 1) // 7 == windows


def test_every_label_of_an_epoch_is_used_exactly_once():
    batches = Batches(stream_of(71), sequence_length=7, batch_sequences=5, seed=3)
    labels = np.concatenate([batches.batch(step)[:, 1:].ravel() for step in range(2)])
    np.testing.assert_array_equal(np.sort(labels), np.arange(1, 71))


def test_a_row_is_a_run_of_tokens_with_one_more_than_the_sequence():
    batch = Batches(stream_of(1000), 7, 4, 0).batch(9)
    assert batch.shape == (4, 8)
    assert batch.dtype == np.int64
    np.testing.assert_array_equal(np.diff(batch), 1)
    np.testing.assert_array_equal(batch[:, 0] % 7, 0)


@given(seed=st.integers(0, 2**63), batch=st.integers(1, 9), windows=st.integers(1, 40))
def test_no_window_comes_twice_in_an_epoch_whatever_the_batch(seed, batch, windows):
    batches = Batches(stream_of(windows * 3 + 1), 3, batch, seed)
    steps = math.ceil(3 * windows / batch)
    used = np.concatenate([batches.windows(step) for step in range(steps)])
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(used[epoch * windows : (epoch + 1) * windows]), np.arange(windows))


def test_epochs_have_different_orders():
    batches = Batches(stream_of(601), 3, 200, 0)
    assert batches.windows_per_epoch == 200
    assert not np.array_equal(batches.windows(0), batches.windows(1))


def test_the_same_seed_and_step_give_the_same_batch_whatever_came_before():
    def make() -> Batches:
        return Batches(stream_of(1000), 7, 4, 11)

    in_order = [make().batch(step) for step in range(6)]
    used = make()
    for step in (5, 0, 3, 3):
        np.testing.assert_array_equal(used.batch(step), in_order[step])


def test_another_seed_gives_another_order():
    first, second = (Batches(stream_of(1000), 7, 64, seed).windows(0) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_the_order_of_a_seed_is_the_same_for_ever():
    assert Batches(stream_of(1000), 7, 6, 0).windows(0).tolist() == [117, 9, 93, 132, 33, 6]
    # A power of four has a network of just its size.
    assert Batches(stream_of(7 * 64 + 1), 7, 6, 0).windows(0).tolist() == [7, 35, 60, 16, 28, 14]


def test_the_larger_batch_takes_the_same_windows_in_the_same_order():
    stream = stream_of(1000)
    small, large = Batches(stream, 7, 4, 5), Batches(stream, 7, 8, 5)
    np.testing.assert_array_equal(np.concatenate([small.windows(0), small.windows(1)]), large.windows(0))


def test_too_few_tokens_for_one_window_are_refused():
    with pytest.raises(CoolbitsError, match="sequence_length: 7 needs 8 tokens, but the shards hold 7"):
        Batches(stream_of(7), 7, 1, 0)


def rolled(batches: list[np.ndarray]) -> str:
    digest = NO_BATCHES
    for batch in batches:
        digest = roll_digest(digest, batch)
    return digest


def test_the_rolling_digest_proves_content_and_order():
    batches = [Batches(stream_of(1000), 7, 4, 0).batch(step) for step in range(3)]
    assert rolled(batches) == rolled([batch.astype(np.uint16) for batch in batches])
    assert rolled(batches) != rolled(batches[::-1])
    assert rolled(batches) != rolled(batches[:2])
    changed = [batch.copy() for batch in batches]
    changed[1][2, 3] += 1
    assert rolled(batches) != rolled(changed)


def test_the_rolling_digest_goes_on_from_any_step():
    batches = [Batches(stream_of(1000), 7, 4, 0).batch(step) for step in range(4)]
    halfway = rolled(batches[:2])
    assert roll_digest(roll_digest(halfway, batches[2]), batches[3]) == rolled(batches)
