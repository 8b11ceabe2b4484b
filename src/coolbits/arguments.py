"""Arguments of the command line, and the one line in which a command refuses what it was given."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

USAGE_ERROR = 2


def refuse(sentence: str) -> int:
    """Print a sentence in one line, whatever is in the names that it quotes; return the exit status."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence)
    print(f"coolbits: {shown}", file=sys.stderr)
    return USAGE_ERROR


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, as all else is said."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit."""
        sys.exit(refuse(f"{message}; see {self.prog} --help"))


def at_least(least: int) -> Callable[[str], int]:
    """Return the function that reads a whole number from `least`, which is not negative."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"should be a whole number from {least}; found {text!r}")
        return int(text)

    return read


def megabytes(text: str) -> int:
    """Read a size in megabytes; return bytes."""
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e9:
        raise argparse.ArgumentTypeError(f"should be a number of megabytes, from 0; found {text!r}")
    return int(size * 1e6)


def reason(text: str) -> str:
    """Read a reason, which says something."""
    if not text.strip():
        raise argparse.ArgumentTypeError("should be a reason; found nothing")
    return text
