"""Where compiled code is kept."""

import shutil
from pathlib import Path

import pytest

from coolbits import native

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")


@pytest.fixture
def homeless(fresh: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A user by number alone, as in many containers: no home, and no name to look one up."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
        fresh.delenv(name, raising=False)
    fresh.setattr("pwd.getpwuid", unknown)
    return fresh


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A function in C++."""
    path = tmp_path / "one.cpp"
    path.write_text('extern "C" int one() { return 1; }')
    return path


@needs_compiler
def test_who_has_no_home_does_without_compiled_code_and_is_told(
    homeless: pytest.MonkeyPatch, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    homeless.setenv("CXX", "g++")
    assert native.library(source) is None
    assert "one.cpp cannot be compiled" in caplog.text


@needs_compiler
@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"])
def test_a_cache_folder_that_is_named_needs_no_home(
    homeless: pytest.MonkeyPatch, source: Path, tmp_path: Path, name: str
) -> None:
    homeless.setenv("CXX", "g++")
    homeless.setenv(name, str(tmp_path / "cache"))
    compiled = native.library(source)
    assert compiled is not None and compiled.one() == 1
