"""What a disk refuses, told from the errors of the many libraries that write."""

import errno
import os
import re

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
# Rust's libraries and Arrow give the number in their text; SQLite and NumPy have words of their own.
_NUMBER = re.compile(r"\[?(?:os error|errno) (\d+)", re.IGNORECASE)
_WORDS = {"disk is full": errno.ENOSPC, "disk I/O error": errno.EIO, " requested and ": errno.ENOSPC}


def disk_refusal(error: Exception) -> str | None:
    """Return in a few words what the disk refused, and where if that is known; None if the error is of another kind."""
    said = str(error)
    number = getattr(error, "errno", None)
    if number is None and (found := _NUMBER.search(said)):
        number = int(found[1])
    if number is None:
        number = next((meant for words, meant in _WORDS.items() if words in said), None)
    if number not in _REFUSALS:
        return None
    place = getattr(error, "filename", None)
    return f"{place}: {os.strerror(number)}" if place else os.strerror(number)
