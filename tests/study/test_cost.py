import pytest

from coolbits.models.counts import flops_per_token, parameter_counts
from coolbits.study.cost import exists, job_seconds, plan_report, study_cost

BATCH = 64
# Of the tiny study at rate 0.01: a trunk of 20 steps, two cooldowns of 5, a WSD decay of 5 that leaves the trunk at 15.
# At rate 0.03: 15 steps and a decay of 5. Run separately: 20, 15 and 25, and twice 20.
SHARED_STEPS = 20 + 2 * 5 + 5 + 15 + 5
NAIVE_STEPS = 20 + 15 + 25 + 2 * 20


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
    tiny["averages"] = {}
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
    tiny["quantizers"] = {"rtn-w4": {"method": {"kind": "rtn", "grid": {"bits": 4, "group_size": 16}}}}
    plan = planned(tiny)
    weights = parameter_counts(plan.tracks[0].recipe.model).total
    # Two checkpoints in float32 with AdamW's two states, their average, and in 4 bits the last one and the average.
    assert study_cost(plan, tmp_path).bytes == weights * (2 * 3 * 4 + 4) + 2 * (weights * 4 // 8)


def test_a_longer_training_takes_longer(tiny, planned):
    short = planned(tiny)
    tiny["runs"]["trunk"]["tokens"] = 128_000
    long = planned(tiny)
    seconds = [max(job_seconds(job, plan) for job in plan.jobs("checkpoint")) for plan in (short, long)]
    assert seconds[0] < seconds[1]


@pytest.mark.parametrize("kind", ["quantized", "evaluation"])
def test_more_quantizers_take_longer(tiny, planned, kind):
    few = planned(tiny)
    tiny["quantizers"]["rtn-w4"] = {"method": {"kind": "rtn", "grid": {"bits": 4}}}
    many = planned(tiny)
    seconds = [sum(job_seconds(job, plan) for job in plan.jobs(kind)) for plan in (few, many)]
    assert seconds[0] < seconds[1]


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
