"""Arguments of the command line, and the one line in which a command refuses what it was given."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.refusals import disk_refusal

USAGE_ERROR = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM was heard. What lets Ctrl-C through, and removes what it has half written, lets this through as well."""


def refuse(sentence: str) -> int:
    """Print a sentence in one line, whatever is in the names that it quotes; return the exit status."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence)
    print(f"coolbits: {shown}", file=sys.stderr)
    return USAGE_ERROR


def refuse_disk(refusal: str) -> int:
    """Print the sentence on what the disk refused, as `disk_refusal` tells it; return the exit status."""
    return refuse(f"{refusal}; what is finished stays: run again once that is mended")


@contextmanager
def hearing_termination() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, not the process at once; a second one does that.

    Raises:
        Terminated: if it came.
    """

    def hear(number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupted(error: KeyboardInterrupt) -> int:
    """Say in one line which signal was heard, and end as one does who did not hear it.

    Shells call that status 130, or 143. Of a status alone a shell thinks that the signal was meant for no one else, and
    goes on with its loop.
    """
    terminated = isinstance(error, Terminated)
    number = signal.SIGTERM if terminated else signal.SIGINT
    said = "stopped by SIGTERM" if terminated else "interrupted"
    print(f"coolbits: {said}; what is finished stays: run again to go on", file=sys.stderr, flush=True)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    return 128 + number  # if the signal is blocked


@contextmanager
def refusing() -> Iterator[None]:
    """Print one sentence and exit where the block finds its input wrong, or the disk refuses something."""
    try:
        yield
    except CoolbitsError as error:
        sys.exit(refuse(str(error)))
    except OSError as error:
        if (refusal := disk_refusal(error)) is None:
            raise
        sys.exit(refuse_disk(refusal))


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, as all else is said."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit."""
        sys.exit(refuse(f"{message}; see {self.prog} --help"))


def add_verb(verbs: Any, name: str, does: str) -> argparse.ArgumentParser:
    """Add a command to the subparsers `verbs`; what it does stands in the list of commands, and in its own help."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
    return parser


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
