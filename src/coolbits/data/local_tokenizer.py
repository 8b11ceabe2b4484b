"""Which files of a directory on this machine a tokenizer is read from: its identity is theirs, all of them."""

from pathlib import Path

from coolbits.models.tokenizer_files import TEMPLATES, TOKENIZER_FILES

# The library takes the tokenizer's class from config.json where tokenizer_config.json names none, and another
# tokenizer.json, of a version, where that one names it.
_PATTERNS = ("config.json", *TOKENIZER_FILES, "tokenizer.*.json", TEMPLATES)


def local_files(directory: Path) -> tuple[str, ...]:
    """Return the names, relative to `directory` and sorted, of those of a tokenizer's files that there are."""
    found = {path for pattern in _PATTERNS for path in directory.glob(pattern) if path.is_file()}
    return tuple(sorted(path.relative_to(directory).as_posix() for path in found))
