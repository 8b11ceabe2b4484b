import pytest

from coolbits.models.counts import flops_per_token, parameter_counts
from coolbits.study.cost import exists, plan_report, study_cost
from coolbits.study.durations import job_seconds
from coolbits.study.finetuning import tuning_flops
from coolbits.study.plan import KINDS

BATCH = 64
# Of the tiny study at rate 0.01: a trunk of 20 steps, two cooldowns of 5, a WSD decay of 5 that leaves the trunk at 15.
# At rate 0.03: 15 steps and a decay of 5. Run separately: 20, 15 and 25, and twice 20.
SHARED_STEPS = 20 + 2 * 5 + 5 + 15 + 5
NAIVE_STEPS = 20 + 15 + 25 + 2 * 20

TUNED = {
    "start": {"run": "wsd"},
    "data": {"kind": "embedded", "examples": 100},
    "optimizer": {"kind": "adamw"},
    "peak_lr": 1e-3,
    "schedule": {"kind": "cosine"},
    "batch_examples": 8,
    "sequence_length": 16,
}


def finish(node, root):
    node.directory(root).mkdir(parents=True)
    (node.directory(root) / "manifest.json").write_text("{}")


def test_a_shared_trunk_is_paid_once(tiny, planned, tmp_path):
    cost = study_cost(planned(tiny), tmp_path)
    assert cost.tokens == cost.tokens_left == SHARED_STEPS * BATCH
    assert cost.naive_tokens == NAIVE_STEPS * BATCH
    assert cost.saved == pytest.approx(1 - SHARED_STEPS / NAIVE_STEPS)


def test_flops_are_tokens_times_those_of_a_token(tiny, planned, tmp_path):
    plan = planned(tiny)
    cost = study_cost(plan, tmp_path)
    recipe = plan.tracks[0].recipe
    assert cost.flops == cost.tokens * flops_per_token(recipe.model, recipe.sequence_length)


def test_one_run_alone_saves_nothing(tiny, planned, tmp_path):
    tiny |= {"averages": {}, "figures": {}}
    tiny["runs"] = {"cosine": {"schedule": {"kind": "cosine", "warmup": 128}, "tokens": 1280}}
    cost = study_cost(planned(tiny), tmp_path)
    assert (cost.tokens, cost.naive_tokens, cost.saved) == (1280, 1280, 0)


def test_what_exists_is_not_to_be_trained_again(tiny, planned, tmp_path):
    plan = planned(tiny)
    trunk, cooldown = plan.tracks[0], plan.tracks[1]
    assert cooldown.columns["branch_tokens"] == 10 * BATCH
    for node in (trunk.checkpoint(10), trunk.checkpoint(15), cooldown.checkpoint(15)):
        finish(node, tmp_path)
    cost = study_cost(plan, tmp_path)
    assert cost.existing == 3
    assert cost.tokens_left == (SHARED_STEPS - 15 - 5) * BATCH
    assert cost.tokens == SHARED_STEPS * BATCH
    assert exists(trunk.checkpoint(10), tmp_path)
    assert not exists(trunk.checkpoint(20), tmp_path)


def test_disk_is_weights_optimizer_states_and_packed_codes(tiny, planned, tmp_path):
    tiny["runs"] = {"trunk": {"schedule": {"kind": "constant", "warmup": 128}, "tokens": 1280}}
    tiny["averages"]["lawa"]["every"] = 640
    tiny["figures"] = {}
    tiny["quantizers"] = {"rtn-w4": {"method": {"kind": "rtn", "grid": {"bits": 4, "group_size": 16}}}}
    plan = planned(tiny)
    weights = parameter_counts(plan.tracks[0].recipe.model).total
    # Two checkpoints in float32 with AdamW's two states, their average, and in 4 bits the last one and the average.
    assert study_cost(plan, tmp_path).bytes == weights * (2 * 3 * 4 + 4) + 2 * (weights * 4 // 8)


def test_fine_tunings_are_trained_too(tiny, planned, tmp_path):
    before = study_cost(planned(tiny), tmp_path)
    plan = planned(tiny | {"finetuning": {"qa": TUNED}})
    cost = study_cost(plan, tmp_path)
    tuned = plan.of_kind("finetuned")
    # Two ends of the run: 13 steps of 8 conversations, each half of 16 tokens long.
    assert len(tuned) == 2
    assert cost.tokens - before.tokens == cost.tokens_left - before.tokens_left == 2 * 13 * 8 * 8
    assert cost.naive_tokens - before.naive_tokens == 2 * 13 * 8 * 8
    known = {node.name: node for node in plan.nodes}
    flops = sum(tuning_flops(node, known) for node in tuned)
    assert cost.flops - before.flops == pytest.approx(flops)
    assert cost.naive_flops - before.naive_flops == pytest.approx(flops)
    finish(tuned[0], tmp_path)
    assert study_cost(plan, tmp_path).tokens_left == cost.tokens_left - 13 * 8 * 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_hours_are_those_of_all_jobs(tiny, planned, tmp_path, device):
    plan = planned(tiny | {"execution": {"device": device, "tokenizer_workers": 1}})
    cost = study_cost(plan, tmp_path)
    seconds = {job.name: job_seconds(job, plan) for kind in KINDS for job in plan.jobs(kind)}
    assert cost.core_hours + cost.gpu_hours == pytest.approx(sum(seconds.values()) / 3600)
    assert cost.longest_job_hours == max(seconds.values()) / 3600
    assert (cost.gpu_hours > 0) == (device == "cuda")
    assert cost.core_hours > 0


def test_the_report_names_every_node_its_parents_and_whether_it_exists(tiny, planned, tmp_path):
    plan = planned(tiny)
    finish(plan.of_kind("corpus")[0], tmp_path)
    report = plan_report(plan, tmp_path)
    assert report["study"] == "tiny"
    assert report["cost"]["existing"] == 1
    assert report["cost"]["saved"] == pytest.approx(1 - SHARED_STEPS / NAIVE_STEPS)
    nodes = {f"{node['kind']}/{node['name']}": node for node in report["nodes"]}
    assert len(nodes) == len(plan.nodes) == report["cost"]["nodes"]
    assert [name for name, node in nodes.items() if node["exists"]] == ["corpus/" + plan.of_kind("corpus")[0].name]
    assert all(parent in nodes for node in nodes.values() for parent in node["parents"].values())
