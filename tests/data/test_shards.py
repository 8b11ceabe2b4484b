"""A shard gives back its tokens, and any shard that is not whole, or not the right one, is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream, open_shard, open_stream, read_header, verify_shard, write_shard

HEADER_BYTES = 64


def spoil(path: Path, place: int, mask: int = 1) -> None:
    """Flip bits of one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.write_bytes(content)


@pytest.fixture
def shards(tmp_path) -> Path:
    """Two training shards of equal length and a validation shard, with their index."""
    index: dict = {"vocabulary_size": 1000, "end_of_text_id": 0, "train": [], "validation": []}
    for split, number, start in [("train", 0, 0), ("train", 1, 50), ("validation", 0, 100)]:
        name = f"{split}-{number:05d}.bin"
        header = write_shard(tmp_path / name, [np.arange(start, start + 50)], 1000)
        index[split].append({"file": name, "tokens": 50, "sha256": header.digest})
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize(("vocabulary", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_tokens_come_back_in_the_smallest_type(tmp_path, vocabulary, dtype):
    tokens = np.random.default_rng(0).integers(vocabulary, size=1000)
    tokens[0] = vocabulary - 1
    header = write_shard(tmp_path / "a.bin", np.array_split(tokens, 7), vocabulary)
    opened = open_shard(tmp_path / "a.bin", vocabulary)
    assert opened.dtype == dtype
    assert header == read_header(tmp_path / "a.bin")
    assert (tmp_path / "a.bin").stat().st_size == HEADER_BYTES + 1000 * dtype().itemsize
    np.testing.assert_array_equal(opened, tokens)
    verify_shard(tmp_path / "a.bin")


def test_a_shard_cannot_be_written_to(shards):
    with pytest.raises(ValueError, match="read-only"):
        open_shard(shards / "train-00000.bin", 1000)[0] = 1


@pytest.mark.parametrize("token", [-1, 1000])
def test_a_token_outside_the_vocabulary_is_never_written(tmp_path, token):
    with pytest.raises(ValueError, match=r"token ids must lie in \[0, 1000\)"):
        write_shard(tmp_path / "a.bin", [np.array([1, token])], 1000)


def test_a_shard_of_no_tokens_is_a_shard(tmp_path):
    write_shard(tmp_path / "a.bin", [], 1000)
    assert open_shard(tmp_path / "a.bin", 1000).size == 0
    verify_shard(tmp_path / "a.bin")


@pytest.mark.parametrize("left", [0, 10, HEADER_BYTES, HEADER_BYTES + 99])
def test_a_truncated_shard_is_refused_by_name(shards, left):
    path = shards / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CoolbitsError, match=r"train-00001\.bin: truncated"):
        open_stream(shards, "train")


def test_a_shard_with_something_behind_it_is_refused_by_name(shards):
    path = shards / "train-00001.bin"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CoolbitsError, match=r"train-00001\.bin: too long"):
        open_stream(shards, "train")


@given(place=st.integers(0, HEADER_BYTES + 99), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_shard_is_refused_by_name(tmp_path_factory, place, bit):
    directory = tmp_path_factory.mktemp("shards")
    header = write_shard(directory / "train-00000.bin", [np.arange(50)], 1000)
    entry = {"file": "train-00000.bin", "tokens": 50, "sha256": header.digest}
    (directory / "index.json").write_text(
        json.dumps({"vocabulary_size": 1000, "end_of_text_id": 0, "train": [entry], "validation": []})
    )
    spoil(directory / "train-00000.bin", place, 1 << bit)
    with pytest.raises(CoolbitsError, match=r"train-00000\.bin: "):
        open_stream(directory, "train")


def test_a_bit_flipped_after_a_first_reading_is_seen_at_the_next(shards):
    verify_shard(shards / "train-00000.bin")
    spoil(shards / "train-00000.bin", HEADER_BYTES + 3)
    with pytest.raises(CoolbitsError, match=r"train-00000\.bin: damaged"):
        verify_shard(shards / "train-00000.bin")


def test_tokens_are_hashed_again_only_if_asked_for(shards):
    spoil(shards / "train-00000.bin", HEADER_BYTES)
    assert open_stream(shards, "train", verify=False).tokens == 100
    for verify in (True, None):
        with pytest.raises(CoolbitsError, match=r"train-00000\.bin: damaged"):
            open_stream(shards, "train", verify)


def test_swapped_shards_are_refused_by_name(shards):
    (shards / "train-00000.bin").rename(shards / "aside")
    (shards / "train-00001.bin").rename(shards / "train-00000.bin")
    (shards / "aside").rename(shards / "train-00001.bin")
    with pytest.raises(CoolbitsError, match=r"train-00000\.bin: not the shard that index\.json lists"):
        open_stream(shards, "train", verify=False)


def test_a_shard_of_another_vocabulary_is_refused_by_name(shards):
    with pytest.raises(CoolbitsError, match=r"train-00000\.bin: made for a vocabulary of 1000, but one of 999"):
        open_shard(shards / "train-00000.bin", 999)


def test_missing_files_are_refused_by_name(shards, tmp_path_factory):
    (shards / "train-00001.bin").unlink()
    with pytest.raises(CoolbitsError, match=r"train-00001\.bin: no such shard"):
        open_stream(shards, "train")
    with pytest.raises(CoolbitsError, match=r"index\.json: no such file, so this is no directory of token shards"):
        open_stream(tmp_path_factory.mktemp("empty"), "train")


def test_a_stream_joins_the_shards_of_its_split(shards):
    train, validation = open_stream(shards, "train"), open_stream(shards, "validation")
    np.testing.assert_array_equal(train.read(0, train.tokens), np.arange(100))
    np.testing.assert_array_equal(validation.read(0, 50), np.arange(100, 150))
    assert (train.vocabulary_size, train.end_of_text_id) == (1000, 0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.data())
def test_reading_a_stream_is_slicing_the_whole(lengths, data):
    total = sum(lengths)
    whole = np.arange(total, dtype=np.uint16)
    starts = (0, *np.cumsum(lengths).tolist())
    stream = TokenStream(tuple(np.split(whole, starts[1:-1])), starts, 100, 0)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    np.testing.assert_array_equal(stream.read(start, stop), whole[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (90, 101)])
def test_a_range_outside_the_stream_is_an_error(shards, start, stop):
    with pytest.raises(IndexError, match="are not inside a stream of 100"):
        open_stream(shards, "train").read(start, stop)
