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


@needs_compiler
def test_a_library_is_made_once_and_again_for_other_sources(
    fresh: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    cache, included = tmp_path / "cache", tmp_path / "number.cpp"
    fresh.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    source.write_text('#include "number.cpp"\nextern "C" int one() { return NUMBER; }')
    for number, files in ((1, 1), (1, 1), (2, 2)):
        included.write_text(f"#define NUMBER {number}")
        native.library.cache_clear()
        times = {path: path.stat().st_mtime_ns for path in cache.glob("*")}
        compiled = native.library(source, included)
        assert compiled is not None and compiled.one() == number
        made = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
        assert times.items() <= made.items() and len(made) == files
