"""The file of a calibration's tokens: read back as it was written, or refused in one sentence."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.tokens import TOKENS, Tokens, read_tokens, write_tokens

IDS = torch.tensor([[5, 6, 7], [8, 0, 0]])
LENGTHS = torch.tensor([3, 1])


def test_tokens_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    write_tokens(Tokens(IDS, LENGTHS), tmp_path)
    found = read_tokens(tmp_path)
    assert torch.equal(found.tokens, IDS) and torch.equal(found.lengths, LENGTHS)
    assert found.tokens.dtype == torch.int64


def test_chunks_have_the_longest_sequences_first_and_end_with_their_own_longest() -> None:
    lengths = torch.tensor([2, 4, 1, 2, 4])
    tokens = torch.arange(5)[:, None] * 10 + torch.arange(6)
    chunks = Tokens(tokens, lengths).longest_first(2)
    assert [chunk.tokens.tolist() for chunk in chunks] == [
        [[10, 11, 12, 13], [40, 41, 42, 43]],
        [[0, 1], [30, 31]],
        [[20]],
    ]
    assert [chunk.lengths.tolist() for chunk in chunks] == [[4, 4], [2, 2], [1]]


def test_sequences_of_equal_length_stay_in_their_order() -> None:
    tokens = torch.arange(12).reshape(4, 3)
    chunks = Tokens.of_equal_length(tokens).longest_first(2)
    assert torch.equal(torch.cat([chunk.tokens for chunk in chunks]), tokens)


REFUSED = {
    "no tokens": ({"lengths": LENGTHS}, "`tokens`: there is no such key"),
    "no lengths": ({"tokens": IDS}, "`lengths`: there is no such key"),
    "a negative token": ({"tokens": IDS - 1, "lengths": LENGTHS}, "`tokens`: holds -1; tokens are numbered from 0"),
    "floats": ({"tokens": IDS + 0.5, "lengths": LENGTHS}, "`tokens`: holds float32; integers are expected"),
    "truth values": ({"tokens": IDS > 0, "lengths": LENGTHS}, "`tokens`: holds bool; integers are expected"),
    "one dimension": ({"tokens": IDS[0], "lengths": LENGTHS}, "`tokens`: has 1 dimensions; expected: 2"),
    "no sequence": ({"tokens": IDS[:0], "lengths": LENGTHS[:0]}, "`tokens`: is empty"),
    "lengths that are floats": (
        {"tokens": IDS, "lengths": LENGTHS.double()},
        "`lengths`: holds float64; integers are expected",
    ),
    "lengths of two dimensions": ({"tokens": IDS, "lengths": IDS}, "`lengths`: has 2 dimensions; expected: 1"),
    "too few lengths": (
        {"tokens": IDS, "lengths": LENGTHS[:1]},
        "`lengths`: holds 1 numbers; expected: 2, one a sequence of `tokens`",
    ),
    "a length beyond the width": (
        {"tokens": IDS, "lengths": LENGTHS + 1},
        "`lengths`: holds 4; allowed are 1 to 3, the width of `tokens`",
    ),
    "a length of nothing": (
        {"tokens": IDS, "lengths": LENGTHS - 1},
        "`lengths`: holds 0; allowed are 1 to 3, the width of `tokens`",
    ),
}


@pytest.mark.parametrize(("parts", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_calibration_is_refused(parts: dict[str, torch.Tensor], sentence: str, tmp_path: Path) -> None:
    save_file({name: part.clone() for name, part in parts.items()}, tmp_path / TOKENS)
    with pytest.raises(CoolbitsError, match=f"^{re.escape(f'{tmp_path / TOKENS}: {sentence}')}$"):
        read_tokens(tmp_path)
