"""The place of a new folder, seen to before the work that fills it."""

import errno
import os
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import beside, is_text


def check_target(out: Path) -> None:
    """Refuse a place where no new folder can be made; nothing is touched there.

    Raises:
        CoolbitsError: if something is at `out`, its name is not UTF-8 or leaves no room for that of the folder that is
            filled first, or nothing may be written where it belongs.
    """
    if os.path.lexists(out):
        raise CoolbitsError(f"{out}: exists already; choose another --out")
    if not is_text(out):
        raise CoolbitsError(f"--out {out}: not valid UTF-8, which libraries take names for; choose another --out")
    try:
        os.lstat(beside(out, "new"))  # what `creating` fills
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise CoolbitsError(f"--out {out}: too long a name; choose another --out") from None
    folder = next(filter(os.path.lexists, out.parents))
    if folder.is_file():
        raise CoolbitsError(f"--out {out}: {folder}: a file is where a folder should be")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CoolbitsError(f"--out {out}: {folder}: nothing may be written there; choose another --out")
