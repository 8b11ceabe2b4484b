"""What a job asks of a cluster: more for a larger model, less on the host when an accelerator trains."""

import pytest

from coolbits.models.counts import parameter_counts
from coolbits.study.footprint import job_megabytes


@pytest.fixture
def megabytes(tiny, planned):
    """The memory of the first job of a kind, with a model and execution settings."""

    def of(kind, model, **execution):
        plan = planned(tiny | {"defaults": tiny["defaults"] | {"model": model}, "execution": execution})
        return job_megabytes(plan.jobs(kind)[0], plan)

    return of


def test_training_holds_weights_gradients_and_two_states(megabytes, tiny, planned):
    plan = planned(tiny | {"defaults": tiny["defaults"] | {"model": "gpt-2.7b"}, "execution": {"device": "cuda"}})
    weights = 4 * parameter_counts(plan.tracks[0].recipe.model).total / 1e6
    assert 2500 + 4 * weights < megabytes("checkpoint", "gpt-2.7b", device="cuda") < 2500 + 8 * weights


def test_activations_are_on_the_host_only_if_it_trains(megabytes):
    assert megabytes("checkpoint", "gpt-162m", device="cpu") > megabytes("checkpoint", "gpt-162m", device="cuda")


def test_what_a_measure_keeps_is_on_the_host_only_if_it_measures(tiny, planned):
    study = tiny | {"figures": {}, "evaluations": {"curvature": {"measure": {"kind": "curvature"}, "quantizers": []}}}

    def megabytes(device, **model):
        plan = planned(study | model | {"execution": {"device": device}})
        return max(job_megabytes(job, plan) for job in plan.jobs("evaluation")), plan

    large = {"defaults": tiny["defaults"] | {"model": "gpt-1.4b"}}
    asked, plan = megabytes("cuda", **large)
    weights = 4 * parameter_counts(plan.tracks[0].recipe.model).total / 1e6
    assert asked < 2500 + 4 * weights
    # A hundred vectors of Lanczos.
    assert megabytes("cpu", **large)[0] > 2500 + 100 * weights


def test_scoring_a_pretrained_model_takes_no_logits_on_the_host_of_an_accelerator(tiny, planned):
    given = {"source": {"kind": "hub", "id": "some/model"}, "parameters": 1000, "tokens": "1M"}
    study = tiny | {"runs": {}, "averages": {}, "figures": {}, "pretrained": {"given": given}}

    def megabytes(device):
        plan = planned(study | {"execution": {"device": device}})
        return max(job_megabytes(job, plan) for job in plan.jobs("evaluation"))

    assert megabytes("cuda") == 2500 < megabytes("cpu")


def test_the_hidden_states_of_a_calibration_of_what_others_trained_are_on_the_host(tiny, planned):
    # Llama-3.2-3B, whose width is 3,072, on 1,024 windows of 2,048 tokens.
    given = {"source": {"kind": "hub", "id": "some/model"}, "parameters": 3_212_749_824, "tokens": "9T"}
    windows = {"kind": "windows", "sequences": 1024, "sequence_length": 2048}
    tiny["quantizers"] = {"gptq-w4": {"preset": "gptq-w4-g128", "calibration": windows}}
    study = tiny | {"runs": {}, "averages": {}, "figures": {}, "pretrained": {"given": given}}
    plan = planned(study | {"execution": {"device": "cuda"}})
    (job,) = plan.jobs("quantized")
    assert job_megabytes(job, plan) > 1.3 * 4 * (3_212_749_824 + 2 * 1024 * 2048 * 3072) / 1e6


@pytest.mark.parametrize("kind", ["checkpoint", "average", "quantized", "evaluation"])
def test_a_larger_model_asks_for_more(megabytes, kind):
    assert megabytes(kind, "gpt-1.4b") > megabytes(kind, "gpt-162m") >= 2500


@pytest.mark.parametrize("kind", ["corpus", "tokenizer", "shards", "table", "figure"])
def test_work_without_a_model_asks_for_the_libraries_alone(megabytes, kind):
    assert megabytes(kind, "gpt-162m") == 2500
