"""What keeps a long run safe: signals heard between steps, compiling only where it can be done, equal bits."""

import os
import shutil
import signal
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch


@contextmanager
def hearing_signals() -> Iterator[Callable[[], str | None]]:
    """Give a function that names the SIGTERM or SIGINT that came since, if one did, for the loop to ask.

    A second signal acts as it did before the block: whoever is impatient is obeyed.
    """
    heard: list[str] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, hear)
    try:
        yield lambda: heard[0] if heard else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def can_compile(device: str) -> bool:
    """Whether torch.compile has what it needs: on a CPU, a C++ compiler and Python's headers."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return device != "cpu" or (shutil.which(os.environ.get("CXX", "g++")) is not None and headers.is_file())


def make_reproducible(device: str) -> None:
    """Have an accelerator give the same bits each time; a CPU does so anyway, for a fixed number of threads."""
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before it is written, and filling it costs time.
        vars(torch.utils.deterministic)["fill_uninitialized_memory"] = False
