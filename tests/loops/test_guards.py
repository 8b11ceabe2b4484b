"""Signals are heard once, and compiling asks for a compiler."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from coolbits.loops.guards import can_compile, hearing_signals, stop_if_asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_and_the_old_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with hearing_signals() as heard:
        assert heard() is None
        os.kill(os.getpid(), number)
        assert heard() == number.name
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_who_was_asked_to_stop_stops_where_all_is_stored() -> None:
    with hearing_signals() as heard:
        stop_if_asked(heard)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit, match="stopped by SIGTERM; what was made is stored"):
            stop_if_asked(heard)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where the tests were started in the background and it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_is_obeyed_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), hearing_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_without_a_compiler_a_cpu_trains_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert not can_compile("cpu")
    assert can_compile("cuda")
