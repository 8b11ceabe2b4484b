import importlib.util
import runpy

import pytest

from coolbits.models import kernels


def test_without_triton_there_is_just_the_answer_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert runpy.run_path(kernels.__file__)["__all__"] == ["available"]
