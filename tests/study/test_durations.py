"""How long jobs take: more work takes longer, work that is there takes none, and no kind is forgotten."""

import pytest

from coolbits.artifacts.code import code_slice
from coolbits.models.counts import flops_per_token, parameter_counts
from coolbits.stages import STAGES
from coolbits.study.durations import ON_DEVICE, asks_for_gpu, busy_cores, job_seconds
from coolbits.study.plan import KINDS

HOUR, DAY = 3600, 86_400
HUB = {"kind": "hub", "id": "some/text"}


@pytest.fixture
def seconds(planned):
    """The seconds of the longest job of a kind."""

    def of(kind, study):
        plan = planned(study)
        return max(job_seconds(job, plan) for job in plan.jobs(kind))

    return of


def with_data(study, **data):
    return study | {"data": study["data"] | data}


def test_a_longer_training_takes_longer(tiny, seconds):
    short = seconds("checkpoint", tiny)
    tiny["runs"]["trunk"]["tokens"] = 128_000
    assert short < seconds("checkpoint", tiny)


@pytest.mark.parametrize("kind", ["quantized", "evaluation"])
def test_more_quantizers_take_longer(tiny, seconds, kind):
    few = seconds(kind, tiny)
    tiny["quantizers"]["rtn-w4"] = {"method": {"kind": "rtn", "grid": {"bits": 4}}}
    assert few < seconds(kind, tiny)


def test_training_is_what_lies_behind_the_newest_checkpoint_that_is_there(tiny, planned):
    plan = planned(tiny)
    trunk = plan.tracks[0]
    job = next(job for job in plan.jobs("checkpoint") if job.nodes[0].name.startswith(f"{trunk.name}/"))
    step = trunk.recipe.batch_tokens * flops_per_token(trunk.recipe.model, trunk.recipe.sequence_length) / 5e10
    first, middle, last = (trunk.checkpoint(number).name for number in (5, 15, 20))
    whole = job_seconds(job, plan)
    assert whole - job_seconds(job, plan, {first, middle}) == pytest.approx(15 * step)
    assert whole - job_seconds(job, plan, {last}) == pytest.approx(20 * step)


def test_a_branch_is_trained_from_where_it_leaves(tiny, planned):
    plan = planned(tiny)
    branch = plan.tracks[1]
    job = next(job for job in plan.jobs("checkpoint") if job.nodes[0].name.startswith(f"{branch.name}/"))
    step = branch.recipe.batch_tokens * flops_per_token(branch.recipe.model, branch.recipe.sequence_length) / 5e10
    made = {node.name for node in job.nodes}
    assert job_seconds(job, plan) - job_seconds(job, plan, made) == pytest.approx(5 * step)


@pytest.mark.parametrize("kind", ["corpus", "tokenizer", "shards", "average", "quantized", "evaluation"])
def test_what_is_there_takes_no_time(tiny, planned, kind):
    plan = planned(tiny)
    for job in plan.jobs(kind):
        assert job_seconds(job, plan, {node.name for node in job.nodes}) < job_seconds(job, plan)


@pytest.mark.parametrize("kind", ["corpus", "shards"])
def test_a_corpus_takes_as_long_as_it_is(tiny, seconds, kind):
    embedded = seconds(kind, tiny)
    assert embedded < 60
    assert embedded < seconds(kind, with_data(tiny, corpus=HUB | {"documents": 1_000_000}))
    assert seconds(kind, with_data(tiny, corpus=HUB | {"documents": 100})) < embedded


def test_a_corpus_that_nobody_counted_may_take_a_day(tiny, seconds):
    unknown = with_data(tiny, corpus=HUB)
    assert 3 * seconds("corpus", unknown) > DAY
    tiny["runs"]["trunk"] |= {"tokens": 10**11, "checkpoints": {}}
    tiny["averages"] = {}
    # As much text as the longest run reads, were it 100B tokens.
    assert seconds("corpus", with_data(tiny, corpus=HUB)) > 20 * HOUR


@pytest.mark.parametrize(("name", "factor"), [("a.jsonl", 1), ("a.jsonl.gz", 4)])
def test_files_are_as_long_as_their_text(tiny, planned, tmp_path, name, factor):
    def corpus(size):
        (tmp_path / name).write_bytes(bytes(size))
        plan = planned(with_data(tiny, corpus={"kind": "files", "paths": [name]}))
        return job_seconds(plan.jobs("corpus")[0], plan)

    assert corpus(10_000_000) - corpus(0) == pytest.approx(factor * 10_000_000 / 5e6)


def test_a_tokenizer_reads_no_more_than_it_is_trained_on(tiny, seconds):
    def trained_on(count, corpus):
        tokenizer = tiny["data"]["tokenizer"] | {"training_bytes": count}
        return seconds("tokenizer", with_data(tiny, tokenizer=tokenizer, corpus=corpus))

    assert trained_on(1_000_000, HUB) < trained_on(100_000_000, HUB)
    assert trained_on(100_000_000, {"kind": "embedded"}) == trained_on(200_000_000, {"kind": "embedded"})


def test_more_workers_tokenize_faster_and_cost_as_much(tiny, planned):
    for workers in (1, 8):
        plan = planned(with_data(tiny, corpus=HUB) | {"execution": {"tokenizer_workers": workers}})
        hours = job_seconds(plan.jobs("shards")[0], plan) * busy_cores("shards", plan) / HOUR
        assert hours == pytest.approx(150e9 / 1e6 / HOUR, rel=1e-3)


def test_an_average_reads_its_members_and_writes_itself(tiny, planned):
    tiny["averages"]["lawa"]["window"] = 3
    plan = planned(tiny)
    weights = parameter_counts(plan.tracks[0].recipe.model).total
    (job,) = plan.jobs("average")
    first, *others = (node.name for node in job.nodes)
    alone = job_seconds(job, plan, others) - job_seconds(job, plan, [first, *others])
    assert alone == pytest.approx(4 * 4 * weights / 1.5e8)


def test_documents_for_calibration_take_longer_than_windows(tiny, seconds):
    windows = seconds("calibration", tiny)
    tiny["quantizers"]["gptq-w4"]["calibration"] = {"kind": "documents", "source": HUB, "sequences": 100_000}
    assert windows < seconds("calibration", tiny)


def test_a_set_of_tasks_takes_as_long_as_its_tasks_and_their_shots(tiny, seconds):
    def asked(*tasks, **fields):
        measure = {"kind": "tasks", "tasks": tasks, **fields}
        few = {"evaluations": {"tasks": {"measure": measure, "quantizers": []}}, "averages": {}, "figures": {}}
        return seconds("evaluation", tiny | {"defaults": tiny["defaults"] | {"model": "pythia-160m"}} | few)

    alone = asked("sciq")
    assert asked("olmo") > 9 * alone
    assert asked("sciq", shots=5) > 5 * alone
    # 57 subjects, 14,042 questions in all.
    assert asked("mmlu") > 6 * alone
    assert asked("mmlu", limit=10) < asked("mmlu", limit=100) < asked("mmlu")


def test_a_small_model_beside_a_large_one_is_quantized_and_scored_as_fast_as_alone(tiny, planned):
    def quickest(kind, study):
        plan = planned(study | {"averages": {}, "figures": {}})
        return min(job_seconds(job, plan) for job in plan.jobs(kind))

    small = {**tiny["runs"]["trunk"], "model": "micro-neox"}
    both = tiny | {"runs": {"trunk": small, "large": {**small, "model": "gpt-2.7b"}}}
    for kind in ("quantized", "evaluation"):
        assert quickest(kind, both) == quickest(kind, tiny | {"runs": {"trunk": small}})


def test_a_larger_model_takes_longer_to_fetch(tiny, seconds):
    def of(parameters):
        model = {"source": {"kind": "hub", "id": "some/model"}, "parameters": parameters, "tokens": "1M"}
        return seconds("pretrained", tiny | {"pretrained": {"given": model}})

    assert of(3_000_000_000) > of(100_000_000) + 300


def test_kinds_ask_for_a_gpu_whose_stages_choose_a_device(tiny, planned):
    choosing = {kind for kind in KINDS if "coolbits.models.devices" in code_slice(STAGES[kind]).modules}
    assert set(ON_DEVICE) == choosing
    for device, asked in (("cuda", choosing), ("cpu", set()), ("auto", set())):
        plan = planned(tiny | {"execution": {"device": device}})
        assert {kind for kind in KINDS if asks_for_gpu(kind, plan)} == asked
