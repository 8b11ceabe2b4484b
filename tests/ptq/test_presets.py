import subprocess
import sys

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.presets import PRESETS, method_preset
from coolbits.study.recipes.ptq import GPTQ, RTN, Calibration, Grid


@pytest.mark.parametrize(
    ("name", "damping", "step"), [("gptq-w4-g128-paper", 0.01, 0.0025), ("gptq-w4-g128-paper-damp05", 0.05, 0.01)]
)
def test_the_papers_preset_has_the_librarys_defaults_of_its_time(name: str, damping: float, step: float) -> None:
    method = PRESETS[name]
    assert isinstance(method, GPTQ)
    assert method.grid == Grid(bits=4, group_size=128, symmetric=True)
    assert (method.order, method.static_groups, method.true_sequential) == ("activation", False, True)
    assert (method.damping, method.damping_step) == (damping, step)
    assert method.calibration == Calibration(sequences=1024, sequence_length=2048)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("rtn-w3-g64", RTN(grid=Grid(bits=3, group_size=64))),
        ("gptq-w2-g32", GPTQ(grid=Grid(bits=2, group_size=32))),
        ("gptq-w8-channel", GPTQ(grid=Grid(bits=8))),
        ("rtn-w3-g128", PRESETS["rtn-w3-g128"]),
    ],
)
def test_a_name_says_method_bits_and_group(name: str, method: GPTQ | RTN) -> None:
    assert method_preset(name) == method


@pytest.mark.parametrize("name", ["gptq-w9-g64", "awq-w4-g128", "rtn-w3-g0", "rtn-w3"])
def test_another_name_is_refused_with_those_allowed(name: str) -> None:
    with pytest.raises(CoolbitsError, match=f"quantizer '{name}': no such preset; allowed are gptq-w3-g128-paper"):
        method_preset(name)


def test_presets_need_no_torch() -> None:
    code = "import sys, coolbits.ptq.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
