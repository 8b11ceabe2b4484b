"""IDX files: read as they were written, and refused in one sentence where they are not whole."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.vision.idx import read_idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + IMAGES.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_an_idx_file_is_read(tmp_path: Path, pack) -> None:
    path = tmp_path / "images"
    path.write_bytes(pack(CONTENT))
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (CONTENT[:-1], "23 bytes of data, but its header says 24"),
        (CONTENT + b"!", "25 bytes of data, but its header says 24"),
        (b"", "not an IDX file of unsigned bytes; it begins with nothing"),
        (b"PK\x03\x04" + CONTENT, "not an IDX file of unsigned bytes; it begins with 504b0304"),
        (CONTENT[:2] + b"\x0d" + CONTENT[3:], "not an IDX file of unsigned bytes"),
        (CONTENT[:3] + b"\x01" + CONTENT[4:], "an IDX file of 1 dimensions where 3 were expected"),
        (gzip.compress(CONTENT)[:-9], "not a whole gzip file"),
    ],
    ids=["cut off", "too long", "empty", "a zip", "floats", "labels", "cut gzip"],
)
def test_a_bad_file_is_named_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(CoolbitsError, match=sentence) as raised:
        read_idx(path, 3)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoolbitsError, match="no such file"):
        read_idx(tmp_path / "gone", 3)
