import errno
import sqlite3

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.refusals import disk_refusal


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "no matter"), "No space left on device"),
        (PermissionError(errno.EACCES, "no matter", "results/work"), "results/work: Permission denied"),
        (OSError(errno.EROFS, "no matter", "results"), "results: Read-only file system"),
        # As safetensors, tokenizers, Arrow, SQLite and NumPy say it.
        (Exception("Error while serializing: No space left on device (os error 28)"), "No space left on device"),
        (Exception('I/O error: Read-only file system (os error 30) at path "/a"'), "Read-only file system"),
        (OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space"), "No space left on device"),
        (sqlite3.OperationalError("database or disk is full"), "No space left on device"),
        (OSError("100000 requested and 8176 written"), "No space left on device"),
    ],
)
def test_what_a_disk_refuses_is_told_from_the_words_of_any_library(error, said):
    assert disk_refusal(error) == said


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "no", "a"), ValueError("3 is too many"), CoolbitsError("error 28 there")]
)
def test_other_errors_are_not_the_disks(error):
    assert disk_refusal(error) is None
