"""What a plan can tell before any job: measures that cannot be made, groups and sequences that do not fit."""

import re

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.comparison import why_incomparable
from coolbits.study.recipes.methods import RTN, Grid
from coolbits.study.recipes.ptq import Quantized


def gpt2(study):
    study["defaults"]["model"] = "micro-gpt2"
    study["quantizers"]["gptq-w4"]["method"]["calibration"] = {"sequences": 16, "sequence_length": 16}
    return study


def test_learned_positions_end_but_rotations_go_on(tiny, planned):
    assert planned(tiny | {"evaluations": {"loss": {"measure": {"kind": "loss", "sequence_length": 4096}}}})
    study = gpt2(tiny)
    assert planned(study)
    study["evaluations"]["loss"]["measure"]["sequence_length"] = 17
    with pytest.raises(CoolbitsError, match=r"evaluations\.loss\.measure\.sequence_length: 17 tokens, but .* 16 pos"):
        planned(study)


def test_a_calibration_has_no_more_tokens_than_positions_were_learned(tiny, planned):
    study = gpt2(tiny)
    study["quantizers"]["gptq-w4"]["method"]["calibration"]["sequence_length"] = 17
    with pytest.raises(
        CoolbitsError, match=r"quantizers\.gptq-w4\.method\.calibration\.sequence_length: 17 tokens, but"
    ):
        planned(study)


@pytest.mark.parametrize(("size", "fits"), [(64, True), (None, True), (48, False), (128, False)])
def test_groups_divide_the_inputs_of_every_layer(tiny, planned, size, fits):
    tiny["quantizers"]["rtn-w3"]["method"]["grid"]["group_size"] = size
    if fits:
        assert planned(tiny)
    else:
        with pytest.raises(
            CoolbitsError, match=rf"rtn-w3\.method\.grid\.group_size: {size} does not divide the 64 inputs"
        ):
            planned(tiny)


def test_a_quantizer_that_no_evaluation_asks_for_may_fit_nothing(tiny, planned):
    tiny["quantizers"]["rtn-w3"]["method"]["grid"]["group_size"] = 48
    tiny["evaluations"]["loss"]["quantizers"] = ["gptq-w4"]
    assert planned(tiny)


def test_a_run_that_no_evaluation_looks_at_may_fit_nothing(tiny, planned):
    tiny["quantizers"]["rtn-w3"]["method"]["grid"]["group_size"] = 48
    tiny["evaluations"]["loss"] |= {"runs": [], "averages": "all", "quantizers": []}
    assert planned(tiny | {"figures": {}})


AWQ = {"method": {"kind": "awq", "grid": {"bits": 4, "group_size": 16}}}
ROUNDED = {"method": {"kind": "rtn", "grid": {"bits": 4}}, "activations": {"bits": 8}}
BEYOND_WEIGHTS = {
    "awq": (AWQ, "awq scales weights to and fro"),
    "int8": ({"method": {"kind": "int8"}}, "int8 rounds what layers read"),
    "activations": (ROUNDED, "activations rounds what layers read"),
}


@pytest.mark.parametrize("kind", ["prediction", "landscape"])
@pytest.mark.parametrize(("quantizer", "reason"), BEYOND_WEIGHTS.values(), ids=BEYOND_WEIGHTS)
def test_weights_are_not_compared_where_they_do_not_tell_how_functions_differ(tiny, planned, kind, quantizer, reason):
    tiny["quantizers"]["other"] = quantizer
    tiny["evaluations"]["cost"] = {"measure": {"kind": kind, "windows": 2, "sequence_length": 16}}
    message = rf"^evaluations\.cost\.measure: {kind} compares .* quantizers\.other: {reason}.*cost\.quantizers$"
    with pytest.raises(CoolbitsError, match=message):
        planned(tiny)
    tiny["evaluations"]["cost"]["quantizers"] = ["rtn-w3", "gptq-w4"]
    assert planned(tiny)


@pytest.mark.parametrize("kind", ["int8", "activations"])
def test_curvature_is_not_measured_where_the_loss_goes_in_steps(tiny, planned, kind):
    quantizer, reason = BEYOND_WEIGHTS[kind]
    tiny["quantizers"]["other"] = quantizer
    measure = {"kind": "curvature", "windows": 2, "sequence_length": 16, "eigenvalues": 2}
    tiny["evaluations"]["bends"] = {"measure": measure, "quantizers": "all"}
    message = rf"^evaluations\.bends\.measure: curvature is .* quantizers\.other has not: {reason}.*bends\.quantizers$"
    with pytest.raises(CoolbitsError, match=message):
        planned(tiny)
    for others in (["rtn-w3", "gptq-w4"], None):
        tiny["evaluations"]["bends"]["quantizers"] = others
        assert planned(tiny)


@pytest.mark.parametrize("rotation", [None, {}])
def test_a_rotation_is_turned_back_so_that_weights_tell_all(tiny, planned, rotation):
    tiny["quantizers"]["rtn-w3"]["rotation"] = rotation
    tiny["evaluations"]["cost"] = {"measure": {"kind": "prediction", "windows": 2, "sequence_length": 16}}
    assert planned(tiny)


@pytest.mark.parametrize(("model", "fits"), [("micro-neox", True), ("micro-gpt2", False)])
def test_weights_are_not_compared_with_those_of_a_model_whose_head_is_untied(tiny, planned, model, fits):
    study = gpt2(tiny) if model == "micro-gpt2" else tiny
    study["quantizers"]["rtn-w3"]["head"] = True
    measure = {"kind": "prediction", "windows": 2, "sequence_length": 16}
    study["evaluations"]["cost"] = {"measure": measure, "quantizers": ["rtn-w3"]}
    if fits:
        assert planned(study)
    else:
        quantizer = Quantized(method=RTN(grid=Grid(bits=3)), head=True)
        sentence = why_incomparable("prediction", "quantizers.rtn-w3 of run 'trunk'", quantizer, untied=True)
        whole = f"evaluations.cost.measure: {sentence}; name others in evaluations.cost.quantizers"
        with pytest.raises(CoolbitsError, match=f"^{re.escape(whole)}$"):
            planned(study)
        study["evaluations"]["cost"]["quantizers"] = ["gptq-w4"]
        assert planned(study)


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (
            {"kind": "tasks", "tasks": ["lambada_openia"]},
            r"measure\.tasks: no task or set 'lambada_openia'; there are the",
        ),
        (
            {"kind": "tasks", "tasks": ["embedded", "paperb"]},
            r"measure\.tasks: no task or set 'paperb'; .* paper-b, the",
        ),
        (
            {"kind": "tasks", "tasks": ["embedded"], "shots": 5},
            r"measure\.shots: 5, but coolbits_cloze, coolbits_choice",
        ),
        (
            {"kind": "curvature", "eigenvalues": 200, "sequence_length": 16},
            r"measure\.eigenvalues: 200, but 100 `iterations` give at most as many",
        ),
    ],
    ids=["no task", "no set", "shots", "eigenvalues"],
)
def test_a_measure_that_no_model_has_is_refused(tiny, planned, measure, said):
    tiny["evaluations"]["late"] = {"measure": measure}
    with pytest.raises(CoolbitsError, match=rf"^evaluations\.late\.{said}"):
        planned(tiny)


@pytest.mark.parametrize(
    "measure",
    [
        {"kind": "tasks", "tasks": ["embedded", "olmo"]},
        {"kind": "tasks", "tasks": ["paper-a", "lambada_openai"], "shots": 5},
        {"kind": "tasks", "tasks": ["gpqa", "lambada_standard"]},
        {"kind": "curvature", "eigenvalues": 100, "sequence_length": 16},
    ],
    ids=["sets", "shots", "lm-eval's", "eigenvalues"],
)
def test_a_measure_that_models_have_is_planned(tiny, planned, measure):
    tiny["evaluations"]["late"] = {"measure": measure}
    assert planned(tiny)
