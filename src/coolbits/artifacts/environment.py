"""The environment of a run: package versions, lock file, commit, host and device."""

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[3]
LOCK_FILE = _REPOSITORY / "envs" / "coolbits.lock"


@cache
def lock_digest() -> str | None:
    """Return the SHA-256 (hex) of the lock file, or None where the package is installed without the repository."""
    return hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest() if LOCK_FILE.is_file() else None


@cache
def capture_environment() -> dict[str, Any]:
    """Return what a reader needs to judge or rebuild this run: versions, lock, git state, host, threads, device."""
    return {
        "python": platform.python_version(),
        # Of two distributions of one name Python imports the first: setuptools adds copies of its own at the end.
        "packages": {
            about["Name"]: about["Version"]
            for about in (distribution.metadata for distribution in reversed(list(distributions())))
            if about["Name"]
        },
        "lock": lock_digest(),
        "git": git_state(),
        "host": {"name": platform.node(), "system": platform.platform(), "cpu": cpu_name(), "cores": os.cpu_count()},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "device": _device_name(),
    }


@cache
def git_state() -> dict[str, Any] | None:
    """Return the commit of the code, and whether the tree has changes that are not in it; None if there is none.

    It is looked at once a process, which should be at its start: who works on for hours is not to be said to run what
    was committed meanwhile.
    """

    def git(*arguments: str) -> str:
        # In a clone that another user of a cluster owns git answers nothing, unless told that it is trusted. Its code
        # runs here.
        trusting = ["git", "-c", "safe.directory=*", "--no-optional-locks"]
        command = [*trusting, "-C", str(_REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Installed as a package, this lies in no repository, or in one of something else: an analysis, a home folder.
        git("ls-files", "--error-unmatch", "--", str(Path(__file__).resolve()))
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "src", "envs"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_name() -> str:
    """Return the name of this machine's CPU, as its maker gives it."""
    said = cpu_says("model name")
    return platform.processor() if said is None else said or platform.machine()


def cpu_says(field: str) -> str | None:
    """Return a field of /proc/cpuinfo, "" if the CPU has no such; None where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _device_name() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"
