"""The place of a new folder, seen to before the work that fills it."""

import os
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError


def check_target(out: Path) -> None:
    """Refuse a place where no new folder can be made; nothing is touched there.

    Raises:
        CoolbitsError: if something is at `out`, or nothing may be written where it belongs.
    """
    if os.path.lexists(out):
        raise CoolbitsError(f"{out}: exists already; choose another --out")
    folder = next(filter(os.path.lexists, out.parents))
    if folder.is_file():
        raise CoolbitsError(f"--out {out}: {folder}: a file is where a folder should be")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CoolbitsError(f"--out {out}: {folder}: nothing may be written there; choose another --out")
