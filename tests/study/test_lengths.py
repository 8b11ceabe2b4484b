"""Windows of a study that does not say how long they are: as long as what its runs are trained on."""

from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node
from coolbits.study.plan import Plan

MEASURES = [
    {"kind": "loss", "windows": 4},
    {"kind": "curvature", "windows": 4},
    {"kind": "prediction", "windows": 4},
    {"kind": "landscape", "windows": 4},
]


def lengths(nodes: list[Node], key: str) -> set[int]:
    return {node.recipe[key]["sequence_length"] for node in nodes}


def fingerprints(plan: Plan) -> set[str]:
    return {node.fingerprint for node in plan.nodes}


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure["kind"])
def test_windows_are_as_long_as_the_training_of_the_runs(tiny: Any, planned: Any, measure: dict[str, Any]) -> None:
    tiny["evaluations"]["loss"]["measure"] = measure
    tiny["figures"] = {}
    plan = planned(tiny)
    assert lengths(plan.of_kind("evaluation"), "measure") == {16}
    # The recipes on disk state the number: to say it makes no other study.
    measure["sequence_length"] = 16
    assert fingerprints(planned(tiny)) == fingerprints(plan)
    measure["sequence_length"] = 8
    assert lengths(planned(tiny).of_kind("evaluation"), "measure") == {8}


@pytest.mark.parametrize(
    "quantizer",
    [
        {"method": {"kind": "gptq", "grid": {"bits": 4, "group_size": 16}}},
        {"method": {"kind": "gptq", "grid": {"bits": 4, "group_size": 16}, "calibration": {"sequences": 128}}},
        {"preset": "gptq-w4-g16", "calibration": {"kind": "windows"}},
        {"preset": "gptq-w4-g16", "calibration": {"kind": "random"}},
        {"preset": "gptq-w4-g16", "save_model": True},
        "gptq-w4-g16",
    ],
    ids=["default", "sequences", "windows", "random", "preset", "name"],
)
def test_so_is_what_calibrates(tiny: Any, planned: Any, quantizer: Any) -> None:
    tiny["quantizers"]["gptq-w4"] = quantizer
    plan = planned(tiny)
    assert lengths(plan.of_kind("calibration"), "calibration") == {16}
    quantized = [node for node in plan.of_kind("quantized") if node.recipe["method"]["kind"] == "gptq"]
    assert {node.recipe["method"]["calibration"]["sequence_length"] for node in quantized} == {16}


def test_a_length_that_is_said_stays(tiny: Any, planned: Any) -> None:
    tiny["quantizers"]["gptq-w4"] = {"preset": "gptq-ist-w4-g16"}  # of 2,048 tokens by its own account
    assert lengths(planned(tiny).of_kind("calibration"), "calibration") == {2048}
    tiny["quantizers"]["gptq-w4"] = {"preset": "gptq-w4-g16", "calibration": {"kind": "random", "sequence_length": 7}}
    assert lengths(planned(tiny).of_kind("calibration"), "calibration") == {7}


def test_runs_that_differ_leave_it_to_the_study(tiny: Any, planned: Any) -> None:
    tiny["runs"]["wsd"]["sequence_length"] = 32
    del tiny["evaluations"]["loss"]["measure"]["sequence_length"]
    with pytest.raises(
        CoolbitsError, match=r"evaluations\.loss\.measure\.sequence_length: missing, .* 16 and 32 tokens; say which"
    ):
        planned(tiny)
    tiny["evaluations"]["loss"]["runs"] = ["wsd"]
    with pytest.raises(CoolbitsError, match=r"quantizers\.gptq-w4\.method\.calibration\.sequence_length: missing"):
        planned(tiny)
    tiny["quantizers"]["gptq-w4"]["method"]["calibration"] = {"sequence_length": 16}
    tiny["figures"] = {}
    plan = planned(tiny)
    of_wsd = [node for node in plan.of_kind("evaluation") if "model" in node.parents]
    assert 32 in lengths(of_wsd, "measure")


def test_all_runs_are_not_one_whose_name_is_part_of_that_word(tiny: Any, planned: Any) -> None:
    tiny["runs"]["a"] = tiny["runs"]["wsd"] | {"sequence_length": 32}
    del tiny["evaluations"]["loss"]["measure"]["sequence_length"]
    with pytest.raises(CoolbitsError, match=r"measure\.sequence_length: missing, .* 16 and 32 tokens; say which"):
        planned(tiny)
