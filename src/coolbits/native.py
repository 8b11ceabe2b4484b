"""Compiles C++ sources for the processor at hand, once, loads them, and runs their functions on all threads."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

_LOG = logging.getLogger(__name__)
# Nothing that changes a result: only that no one reads errno or floating-point exceptions.
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-shared", "-fPIC")
_WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()


@cache
def library(source: Path, *included: Path) -> ctypes.CDLL | None:
    """Return the functions compiled from `source`, which includes `included`; None if there is no compiler or it fails.

    The cache is TORCHINDUCTOR_CACHE_DIR, where PyTorch's compiler has its own, or else the user's cache folder. For a
    user who has no home nothing is compiled: code is loaded from no folder to which others can write. Names of files
    tell sources, compiler, its version and the processor's instructions: unlike machines can share them.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None
    command = [compiler, *_FLAGS, *_WIDE]
    try:
        macros = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])
        sources = [path.read_bytes() for path in (source, *included)]
        key = hashlib.sha256(b"\0".join([*sources, macros, " ".join(command).encode()])).hexdigest()
        path = _cache_folder() / f"{source.stem}-{key[:16]}.so"
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder) / path.name
                _output([*command, str(source), "-o", str(made)])
                made.replace(path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        _LOG.warning("%s cannot be compiled: %s", source.name, reason if isinstance(reason, str) else reason.decode())
        return None


def has_headers() -> bool:
    """Whether Python's own headers are there, which code that Python is to call is compiled with."""
    return (Path(sysconfig.get_path("include")) / "Python.h").is_file()


def run_parts(run: Callable[[int], None], parts: int, threads: int) -> None:
    """Call `run` with 0 to `parts` - 1, on so many threads that take one part after the other: not all run as fast."""
    if min(threads, parts) > 1:
        list(_pool(threads).map(run, range(parts)))
    else:
        for part in range(parts):
            run(part)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "native")


def _cache_folder() -> Path:
    shared = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    folder = Path(shared) if shared else _user_cache() / "coolbits"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _user_cache() -> Path:
    """Return the user's cache folder; RuntimeError if the user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _output(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout
