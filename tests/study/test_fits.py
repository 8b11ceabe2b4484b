"""What a plan can tell before any job: groups and sequences that do not fit the models."""

import pytest

from coolbits.artifacts.errors import CoolbitsError


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
        with pytest.raises(
            CoolbitsError, match=r"evaluations\.cost\.measure: prediction compares .* quantizers\.rtn-w3\.head unties"
        ):
            planned(study)
        study["evaluations"]["cost"]["quantizers"] = ["gptq-w4"]
        assert planned(study)
