"""What a job asks of a cluster: more for a larger model, less on the host when an accelerator trains."""

import pytest

from coolbits.models.counts import parameter_counts
from coolbits.models.shapes import shape_of
from coolbits.study.footprint import gpu_bytes, job_megabytes
from coolbits.study.training_memory import training_bytes
from coolbits.vision.presets import image_counts, image_preset

TUNED = {
    "optimizer": {"kind": "adamw"},
    "peak_lr": 1e-3,
    "schedule": {"kind": "cosine"},
    "batch_examples": 8,
    "sequence_length": 16,
    "precision": "bfloat16",
}
OF_THE_HUB = {
    "study": "tuned",
    "data": {"tokenizer": {"kind": "hub", "id": "some/model", "vocabulary_size": 1000}},
    "finetuning": {
        "qa": TUNED
        | {"start": {"hub": {"id": "some/model", "parameters": 134_515_008, "tokens": "1T"}}}
        | {"data": {"kind": "embedded", "examples": 100}}
    },
}


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


def test_training_on_the_host_takes_what_a_gpu_would_scores_of_attention_and_a_copy_to_save(tiny, planned):
    long = tiny["defaults"] | {"sequence_length": 512, "batch_tokens": 2048}
    run = {"schedule": {"kind": "wsd", "warmup": 2048, "decay": "25%"}, "tokens": 40960}
    study = tiny | {"defaults": long, "runs": {"wsd": run}, "averages": {}, "figures": {}, "evaluations": {}}
    plan = planned(study | {"execution": {"device": "cpu"}})
    recipe, job = plan.tracks[0].recipe, plan.jobs("checkpoint")[0]
    weights = 4 * parameter_counts(recipe.model).total
    # Four layers with two heads; four sequences of 512 tokens a step.
    scores = 4 * 2 * 512 * 512 * 4 * 6
    taken = training_bytes(recipe.model, recipe.optimizer, recipe.precision, 4 * 512) + scores + weights
    assert job_megabytes(job, plan) == 2500 + round(1.3 * taken / 1e6)


def test_fine_tuning_what_others_trained_takes_more_of_the_host_that_computes(planned):
    def megabytes(device):
        plan = planned(OF_THE_HUB | {"execution": {"device": device}})
        return max(job_megabytes(job, plan) for job in plan.jobs("finetuned"))

    # Eight conversations of 16 tokens: a hundred thousand logits each.
    assert megabytes("cpu") - megabytes("cuda") > 8 * 16 * 100_000 * 12 / 1e6


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


@pytest.mark.parametrize(
    ("measure", "scored"),
    [
        ({"kind": "loss", "windows": 4, "sequence_length": 16, "batch_size": 2}, 2 * 16),
        ({"kind": "tasks", "tasks": ["a"], "batch_size": 3}, 3 * 512),
    ],
)
def test_scoring_a_pretrained_model_takes_it_twice_and_logits_of_a_large_vocabulary(tiny, gpu, measure, scored):
    given = {"source": {"kind": "hub", "id": "some/model"}, "parameters": 1000, "tokens": "1M"}
    study = {"runs": {}, "averages": {}, "figures": {}, "evaluations": {"one": {"measure": measure}}}
    taken, _ = gpu(tiny | study | {"pretrained": {"given": given}}, "evaluation")
    assert taken == 2 * 4 * 1000 + 3 * 4 * scored * 2**17


def test_the_hidden_states_of_a_calibration_of_what_others_trained_are_on_the_host(tiny, planned):
    # Llama-3.2-3B, whose width is 3,072, on 1,024 windows of 2,048 tokens.
    given = {"source": {"kind": "hub", "id": "some/model"}, "parameters": 3_212_749_824, "tokens": "9T"}
    windows = {"kind": "windows", "sequences": 1024, "sequence_length": 2048}
    tiny["quantizers"] = {"gptq-w4": {"preset": "gptq-w4-g128", "calibration": windows}}
    study = tiny | {"runs": {}, "averages": {}, "figures": {}, "pretrained": {"given": given}}
    plan = planned(study | {"execution": {"device": "cuda"}})
    (job,) = plan.jobs("quantized")
    assert job_megabytes(job, plan) > 1.3 * 4 * (3_212_749_824 + 2 * 1024 * 2048 * 3072) / 1e6
    # A block of a hundred million weights, and 16,384 tokens of which an MLP holds four tensors 8,192 wide, in float32.
    assert 1 < gpu_bytes(job, plan) / (4 * (1e8 + 16384 * (3 * 3072 + 4 * 8192))) < 3


@pytest.mark.parametrize("kind", ["checkpoint", "average", "quantized", "evaluation"])
def test_a_larger_model_asks_for_more(megabytes, kind):
    assert megabytes(kind, "gpt-1.4b") > megabytes(kind, "gpt-162m") >= 2500


@pytest.mark.parametrize("kind", ["corpus", "tokenizer", "shards", "table", "figure"])
def test_work_without_a_model_asks_for_the_libraries_alone(megabytes, kind):
    assert megabytes(kind, "gpt-162m") == 2500


@pytest.fixture
def gpu(planned):
    """The bytes of a GPU that the largest job of a kind takes in a study that asks for one."""

    def of(study, kind, **execution):
        plan = planned(study | {"execution": {"device": "cuda", **execution}})
        return max(gpu_bytes(job, plan) for job in plan.jobs(kind)), plan

    return of


def test_a_micro_batch_is_what_is_on_the_gpu_at_once(tiny, gpu):
    whole, plan = gpu(tiny, "checkpoint")
    part, _ = gpu(tiny, "checkpoint", micro_batch_sequences=1)
    recipe = plan.tracks[0].recipe
    # Four sequences of 16 tokens a step.
    assert whole == training_bytes(recipe.model, recipe.optimizer, recipe.precision, 4 * 16)
    assert part == training_bytes(recipe.model, recipe.optimizer, recipe.precision, 16)


def test_a_fine_tuning_has_conversations_for_sequences(tiny, gpu):
    tuned = TUNED | {"start": {"run": "wsd"}, "data": {"kind": "embedded", "examples": 100}}
    taken, plan = gpu(tiny | {"finetuning": {"qa": tuned}}, "finetuned", micro_batch_sequences=2)
    recipe = plan.tracks[0].recipe
    assert taken == training_bytes(recipe.model, recipe.optimizer, "bfloat16", 2 * 16)


def test_a_classifier_keeps_its_whole_batch_wherever_it_trains(tiny, gpu, planned):
    run = {"data": {"kind": "digits"}, "model": "resnet-18", "optimizer": {"preset": "SGDM-8L"}, "peak_lr": 1e-2}
    run |= {
        "schedule": {"kind": "cosine", "warmup": 0},
        "epochs": 1,
        "batch_images": 64,
        "input_size": 64,
        "precision": "bfloat16",
    }
    study = tiny | {"vision": {"digits": run}}
    counts = image_counts(image_preset("resnet-18"), 1, 10, 64)
    # Weights and gradients in float32, weights in bfloat16, one state in codes of 8 bits with a scale for 2,048.
    weights = counts.parameters * (4 + 4 + 2 + 1 + 4 / 2048)
    taken, plan = gpu(study, "classifier")
    assert taken == pytest.approx(weights + 64 * (2 * counts.kept + 8 * counts.pooled), rel=1e-6)
    assert max(job_megabytes(job, plan) for job in plan.jobs("classifier")) == 2500
    host = planned(study | {"execution": {"device": "cpu"}})
    saved = 4 * counts.parameters
    assert max(job_megabytes(job, host) for job in host.jobs("classifier")) == 2500 + round(1.3 * (taken + saved) / 1e6)


@pytest.mark.parametrize("parameters", [134_515_008, 3_212_749_824, 32_000_000_000])
def test_a_model_of_the_hub_is_taken_for_a_llama_of_about_as_many_weights(planned, parameters):
    tuned = OF_THE_HUB["finetuning"]["qa"] | {
        "start": {"hub": {"id": "some/model", "parameters": parameters, "tokens": "1T"}}
    }
    execution = {"device": "cuda", "micro_batch_sequences": 1}
    plan = planned(OF_THE_HUB | {"finetuning": {"qa": tuned}, "execution": execution})
    (job,) = plan.jobs("finetuned")
    # 18 bytes a weight, and little for 16 tokens.
    assert 0.95 < gpu_bytes(job, plan) / (18 * parameters) < 1.3


def test_measuring_takes_on_a_gpu_what_it_would_take_on_the_host(tiny, gpu, planned):
    study = tiny | {"figures": {}, "evaluations": {"curvature": {"measure": {"kind": "curvature"}, "quantizers": []}}}
    study["defaults"] |= {"model": "gpt-1.4b"}
    taken, plan = gpu(study, "evaluation")
    host = planned(study | {"execution": {"device": "cpu"}})
    assert max(job_megabytes(job, host) for job in host.jobs("evaluation")) == 2500 + round(1.3 * taken / 1e6)
    assert taken > 100 * 4 * parameter_counts(plan.tracks[0].recipe.model).total


@pytest.mark.parametrize(("measure", "vectors", "graph"), [("loss", 1, 0), ("curvature", 104, 6)])
def test_a_measure_keeps_weights_vectors_logits_and_the_graph_of_what_is_differentiated_twice(
    tiny, gpu, measure, vectors, graph
):
    scoring = {"measure": {"kind": measure, "windows": 4, "batch_size": 2}, "quantizers": []}
    taken, plan = gpu(tiny | {"figures": {}, "evaluations": {"one": scoring}}, "evaluation")
    weights = 4 * parameter_counts(plan.tracks[0].recipe.model).total
    # Two windows of 16 tokens at once, 300 words; four layers of two heads.
    scored, shape = 2 * 16, shape_of(plan.tracks[0].recipe.model)
    assert (shape.layers, shape.heads) == (4, 2)
    activations = graph * scored * 4 * (34 * shape.width + 5 * 2 * 16)
    assert taken == (1 + vectors) * weights + 3 * 4 * scored * 300 + activations


def test_work_without_a_gpu_takes_none_of_its_memory(tiny, gpu):
    assert [gpu(tiny, kind)[0] for kind in ("corpus", "tokenizer", "shards", "average", "table", "figure")] == [0] * 6
    assert gpu(tiny, "quantized")[0] > 0
