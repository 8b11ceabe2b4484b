import importlib.util
import runpy

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
    assert kernels.available() == (interpreted or gpu)
