"""What the interpreter cannot tell: that the kernels compile, and into what they were written for."""

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


def test_every_launch_compiles_for_hopper(compiled: list[dict]) -> None:
    names = ["adam_kernel"] * 2 + ["momentum_kernel"] * 2 + ["_gram_kernel"] * 2
    assert [kernel["name"] for kernel in compiled] == names


def test_whole_tiles_are_read_and_written_by_vectors(compiled: list[dict]) -> None:
    for kernel in compiled[:4]:
        assert kernel["code"].count("ld.global.v4.b32") >= 2
        assert kernel["code"].count("st.global.v4.b32") >= 2


def test_layouts_are_not_exchanged_through_shared_memory(compiled: list[dict]) -> None:
    """It holds the partial maxima of the blocks alone, a number each warp and row."""
    assert all(kernel["shared"] <= 256 for kernel in compiled[:4])


def test_three_programs_share_a_multiprocessor_without_spilling(compiled: list[dict]) -> None:
    for kernel in compiled[:4]:
        used = kernel["resources"]
        assert 3 * 256 * used["REG"] <= 65_536 and used["STACK"] == used["LOCAL"] == 0


def test_only_blocks_are_divided_by_not_elements(compiled: list[dict]) -> None:
    """An exact division a block; the square roots' inverses and cells do without."""
    for kernel in compiled[:4]:
        assert "div.full" not in kernel["code"] and 0 < kernel["code"].count("div.rn.f32") <= 8


def test_half_precision_is_multiplied_by_the_tensor_cores_and_float32_is_not(compiled: list[dict]) -> None:
    half, single = (kernel["code"] for kernel in compiled[4:])
    assert "wgmma" in half and "cp.async" in half
    assert "mma" not in single and "tf32" not in single


def test_the_product_fits_the_shared_memory_of_small_gpus(compiled: list[dict]) -> None:
    assert all(kernel["shared"] <= 99 * 1024 for kernel in compiled[4:])
