"""What keeps a long run safe: signals heard between steps, compiling only where it can be done, equal bits."""

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

import torch

from coolbits.native import has_headers

# Names the signal that asks to stop, if there was one.
Heard = Callable[[], str | None]


@contextmanager
def hearing_signals() -> Iterator[Heard]:
    """Give a function that names the SIGTERM or SIGINT that came since, if one did, for the loop to ask.

    One block holds all of a job: a signal that comes while an artifact is written is heard before the next is begun.
    The same signal a second time acts as it did before the block: whoever is impatient is obeyed.
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


def stop_if_asked(heard: Heard) -> None:
    """End the process if a signal was heard; for where all that was made is stored, and more is to be made.

    Raises:
        SystemExit: if one was, naming it.
    """
    if (name := heard()) is not None:
        raise SystemExit(f"stopped by {name}; what was made is stored, run again to go on")


def guarded(steps: Iterable[int], heard: Heard, save: Callable[[], None], every_seconds: float) -> Iterator[int]:
    """Yield the number of each update as it is made; save a state each so many seconds, and when a signal was heard.

    Raises:
        SystemExit: after the update during which a signal was heard, naming both.
    """
    saved = monotonic()
    for step in steps:
        yield step
        if (name := heard()) is not None:
            save()
            raise SystemExit(f"stopped by {name} after step {step:,}; its state is saved, run again to go on")
        if monotonic() - saved >= every_seconds:
            save()
            saved = monotonic()


def can_compile(device: str) -> bool:
    """Whether torch.compile has what it needs: a C++ compiler and Python's headers, or on a GPU what kernels need."""
    if device == "cuda":
        from coolbits.optim import kernels  # Triton takes a second to import

        return kernels.available()
    return shutil.which(os.environ.get("CXX", "g++")) is not None and has_headers()


def make_reproducible(device: str) -> None:
    """Have an accelerator give the same bits each time, and float32 where a recipe says so, not TF32.

    A CPU does so anyway, for a fixed number of threads.
    """
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before it is written, and filling it costs time.
        vars(torch.utils.deterministic)["fill_uninitialized_memory"] = False
        torch.backends.cudnn.allow_tf32 = False  # PyTorch forbids it in products, but not in convolutions
