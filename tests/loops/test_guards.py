"""Signals are heard once, and compiling asks for a compiler."""

import math
import os
import shutil
import signal
from collections.abc import Iterator

import pytest
import torch

from coolbits.loops.guards import can_compile, guarded, hearing_signals, make_reproducible, stop_if_asked
from coolbits.optim import kernels


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


def test_states_are_saved_on_the_way_and_after_the_update_in_which_a_signal_came() -> None:
    saved: list[int] = []
    with hearing_signals() as heard:
        steps = guarded(range(1, 9), heard, lambda: saved.append(0), every_seconds=math.inf)
        assert [next(steps), next(steps)] == [1, 2] and not saved
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit, match="stopped by SIGTERM after step 2; its state is saved"):
            next(steps)
    assert saved == [0]
    assert list(guarded(range(1, 4), lambda: None, lambda: saved.append(1), every_seconds=0)) == [1, 2, 3]
    assert saved == [0, 1, 1, 1]


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


@pytest.mark.parametrize("ready", [True, False])
def test_a_gpu_compiles_where_triton_does(ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "available", lambda: ready)
    assert can_compile("cuda") == ready


def test_on_a_gpu_algorithms_are_deterministic_and_float32_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    try:
        make_reproducible("cuda")
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
