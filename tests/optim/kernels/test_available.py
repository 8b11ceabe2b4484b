import importlib.util
import runpy
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

from coolbits.optim import kernels


def test_without_triton_there_is_just_the_answer_that_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    without = runpy.run_path(kernels.__file__)
    assert without["__all__"] == ["available"] and not without["available"]()


@pytest.mark.parametrize(("interpreted", "gpu"), [(True, False), (False, True), (False, False)])
def test_with_triton_it_takes_a_gpu_or_the_interpreter(
    interpreted: bool, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(kernels, "INTERPRETED", interpreted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert kernels.available() == (interpreted or gpu)


@pytest.mark.parametrize(("given", "there"), [(None, "clang"), ("my-cc", "my-cc")])
def test_on_a_gpu_it_takes_a_compiler_and_headers(
    given: str | None, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if given is not None:
        monkeypatch.setenv("CC", given)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == there else None)
    assert not kernels.available()
    (tmp_path / "Python.h").touch()
    assert kernels.available()
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "nothing" else None)
    assert not kernels.available()
