"""Folders of pictures, one a class. Needs no library, so that planning is quick."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import is_text

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def list_pictures(folder: Path) -> dict[str, list[Path]]:
    """Return the pictures of each class, a subfolder, both sorted by name; other and hidden files are passed over.

    Raises:
        CoolbitsError: if the folder is missing, a class or the folder holds none, or the name of a class is no text.
    """
    if not folder.is_dir():
        raise CoolbitsError(f"{folder}: no such folder")
    classes = {
        place.name: sorted(path for path in place.iterdir() if _is_picture(path))
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".")
    }
    if not classes:
        raise CoolbitsError(f"{folder}: no subfolders; pictures lie in one subfolder a class")
    for name, pictures in classes.items():
        if not is_text(Path(name)):
            raise CoolbitsError(f"{folder / name}: the name of a class must be valid UTF-8; rename the folder")
        if not pictures:
            raise CoolbitsError(
                f"{folder / name}: no picture; known are files that end in {', '.join(sorted(_SUFFIXES))}"
            )
    return classes


def _is_picture(path: Path) -> bool:
    # macOS lays a hidden ._NAME beside each file that it writes to a foreign disk or archive.
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def listing_digest(root: Path, folders: Sequence[str]) -> str:
    """Return the SHA-256 (hex) of the list of all pictures: relative path and size, a line each.

    Contents are not read: a set of a million pictures is listed in seconds and read in hours.

    Raises:
        CoolbitsError: as `list_pictures`.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for pictures in list_pictures(root / folder).values():
            for path in pictures:
                digest.update(os.fsencode(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n"))
    return digest.hexdigest()
