"""What the interpreter cannot tell: that the kernel compiles, and into what it was written for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("compile_for_hopper.py")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_half_precision_is_multiplied_by_the_tensor_cores_and_float32_is_not(compiled: list[dict]) -> None:
    *half, single = (kernel["code"] for kernel in compiled)
    assert all("wgmma" in code for code in half[:2])  # of many rows
    assert all("mma.sync" in code for code in half[2:])  # of one
    assert "mma" not in single and "tf32" not in single


def test_codes_of_four_bits_are_read_by_words(compiled: list[dict]) -> None:
    assert "ld.global.b8" not in compiled[0]["code"]


def test_it_fits_the_shared_memory_of_small_gpus(compiled: list[dict]) -> None:
    assert all(kernel["shared"] <= 99 * 1024 for kernel in compiled)
