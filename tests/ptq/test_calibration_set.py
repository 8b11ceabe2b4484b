from pathlib import Path

import pytest
import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream, open_stream
from coolbits.ptq.calibration_set import build_calibration, draw_windows
from coolbits.ptq.tokens import read_tokens
from coolbits.study.recipes.calibration import CalibrationSet, Windows


@pytest.fixture
def stream(shards: Path) -> TokenStream:
    return open_stream(shards, "train")


def test_what_is_written_is_what_was_drawn(shards: Path, stream: TokenStream, tmp_path: Path) -> None:
    recipe = Windows(sequences=4, sequence_length=64)
    summary = build_calibration(CalibrationSet(calibration=recipe), {"shards": shards}, tmp_path)
    assert summary == {"sequences": 4, "tokens": 256}
    written, drawn = read_tokens(tmp_path), draw_windows(stream, recipe)
    assert torch.equal(written.tokens, drawn.tokens)
    assert written.whole


def test_sequences_are_windows_of_the_training_split_drawn_once_each(stream: TokenStream) -> None:
    windows = torch.from_numpy(stream.read(0, 4096).astype("int64")).reshape(-1, 64)
    tokens = draw_windows(stream, Windows(sequences=64, sequence_length=64, seed=3)).tokens
    assert tokens.dtype == torch.int64
    assert sorted(tokens.tolist()) == sorted(windows.tolist())


def test_the_seed_decides_the_sequences(stream: TokenStream) -> None:
    first, again, other = (
        draw_windows(stream, Windows(sequences=8, sequence_length=64, seed=seed)).tokens for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_sequences_than_there_are_are_refused(stream: TokenStream) -> None:
    with pytest.raises(CoolbitsError, match="65 sequences of 64 tokens are wanted, the training split has 64"):
        draw_windows(stream, Windows(sequences=65, sequence_length=64))
