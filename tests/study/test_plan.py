from collections.abc import Iterator
from typing import Any

import pytest

from coolbits.study.execution import Execution, Threads
from coolbits.study.plan import KINDS, Plan

EXECUTION = {
    "device": "cpu",
    "micro_batch_sequences": 2,
    "training_jobs": "family",
    "measuring_jobs": "run",
    "compile": True,
    "tokenizer_workers": 1,
    "state_every_seconds": 5.0,
    "longest_minutes": 30,
}
THREADS = {"data": 1, "training": 2, "measuring": 2}

# One changed value for every identity field that the tiny study has, and the kinds of artifact it must change. Kinds
# further down always change with them; kinds further up never do.
IDENTITY = [
    ("data.validation_fraction", 0.2, "corpus"),
    ("data.salt", "other", "corpus"),
    ("data.tokenizer.vocabulary_size", 400, "tokenizer"),
    ("data.tokenizer.training_bytes", 1000, "tokenizer"),
    ("data.shard_tokens", 4096, "shards"),
    ("defaults.model", "micro-llama", "checkpoint"),
    ("defaults.sequence_length", 32, "checkpoint"),
    ("defaults.batch_tokens", 128, "checkpoint"),
    ("defaults.optimizer.weight_decay", 0.2, "checkpoint"),
    ("defaults.optimizer.beta1", 0.8, "checkpoint"),
    ("defaults.optimizer.beta2", 0.99, "checkpoint"),
    ("defaults.optimizer.eps", 1e-6, "checkpoint"),
    ("defaults.peak_lr", 2e-2, "checkpoint"),
    ("defaults.seed", 7, "checkpoint"),
    ("defaults.data_seed", 7, "checkpoint"),
    ("defaults.precision", "float32", "checkpoint"),
    ("defaults.clip_norm", 2.0, "checkpoint"),
    ("defaults.divergence", {"loss_factor": 3.0}, "checkpoint"),
    ("defaults.log", 64, "checkpoint"),
    ("runs.trunk.schedule.warmup", 256, "checkpoint"),
    ("averages.lawa.window", 3, "average"),
    ("averages.lawa.every", 64, "average"),
    ("quantizers.rtn-w3.method.grid.bits", 2, "quantized"),
    ("quantizers.rtn-w3.method.grid.group_size", 8, "quantized"),
    ("quantizers.rtn-w3.method.grid.symmetric", False, "quantized"),
    ("quantizers.rtn-w3.save_model", True, "quantized"),
    ("quantizers.gptq-w4.method.damping", 0.05, "quantized"),
    ("quantizers.gptq-w4.method.order", "natural", "quantized"),
    ("quantizers.gptq-w4.method.sequential", "none", "quantized"),
    ("quantizers.gptq-w4.method.calibration", {"seed": 1}, "quantized"),
    ("evaluations.loss.measure.windows", 8, "evaluation"),
    ("evaluations.loss.measure.precision", "bfloat16", "evaluation"),
    ("bootstrap_samples", 10, "table"),
    ("figures.tokens.options", {"quantizers": ["rtn-w3"]}, "figure"),
]
ORDER = ["corpus", "tokenizer", "shards", "checkpoint", "average", "quantized", "evaluation", "table", "figure"]


def put(raw: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    *folders, last = dotted.split(".")
    place = raw
    for key in folders:
        place = place.setdefault(key, {})
    place[last] = value
    return raw


def fingerprints(plan: Plan) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for node in plan.nodes:
        kinds.setdefault(node.kind, set()).add(node.fingerprint)
    return kinds


@pytest.fixture(scope="module")
def before(tiny_plan):
    """The fingerprints of the tiny study as it is, by kind; no folder is part of them."""
    return fingerprints(tiny_plan)


def leaves(model: type) -> Iterator[str]:
    yield from model.model_fields


def test_every_execution_field_is_flipped_below():
    assert set(EXECUTION) == set(leaves(Execution))
    assert set(THREADS) == set(leaves(Threads))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("execution", *item) for item in EXECUTION.items()] + [("threads", *item) for item in THREADS.items()],
)
def test_execution_never_changes_a_fingerprint(tiny, planned, before, section, key, value):
    assert Execution().identity().get(key, Threads().identity().get(key)) != value
    assert fingerprints(planned(put(tiny, f"{section}.{key}", value))) == before


@pytest.mark.parametrize(("dotted", "value", "kind"), IDENTITY, ids=[dotted for dotted, _, _ in IDENTITY])
def test_identity_changes_just_what_depends_on_it(tiny, planned, before, dotted, value, kind):
    after = fingerprints(planned(put(tiny, dotted, value)))
    above = ORDER[: ORDER.index(kind)]
    assert {name: before[name] <= after[name] for name in above} == dict.fromkeys(above, True)
    below = [name for name in ORDER[ORDER.index(kind) :] if not (kind == "checkpoint" and name == "average")]
    assert {name: before[name] == after[name] for name in below} == dict.fromkeys(below, False)


def test_calibration_tokens_depend_on_the_shards_and_their_own_recipe_alone(tiny, planned):
    def tokens(dotted: str, value: Any) -> set[str]:
        return fingerprints(planned(put(tiny, dotted, value)))["calibration"]

    before = fingerprints(planned(tiny))["calibration"]
    assert tokens("defaults.peak_lr", 2e-2) == before
    assert tokens("quantizers.gptq-w4.method.calibration", {"seed": 1}) != before
    assert tokens("data.shard_tokens", 4096) != before


def test_changing_one_quantizer_leaves_the_other_alone(tiny, planned):
    before = fingerprints(planned(tiny))["quantized"]
    after = fingerprints(planned(put(tiny, "quantizers.rtn-w3.method.grid.bits", 2)))["quantized"]
    assert len(before & after) == len(before) / 2


def test_names_of_runs_quantizers_and_the_study_are_not_identity(tiny, planned):
    before = planned(tiny)
    tiny["study"] = "renamed"
    tiny["runs"]["stem"] = tiny["runs"].pop("trunk")
    tiny["averages"]["lawa"]["run"] = "stem"
    after = planned(tiny)
    shared = ORDER[: ORDER.index("table")]
    assert [fingerprints(after)[kind] for kind in shared] == [fingerprints(before)[kind] for kind in shared]
    assert {node.name for node in after.of_kind("evaluation")} == {node.name for node in before.of_kind("evaluation")}


def test_a_wsd_run_is_a_trunk_and_a_branch_and_shares_the_trunk(tiny, planned):
    plan = planned(tiny)
    wsd = [track for track in plan.tracks if track.columns["run"] == "wsd" and track.columns["peak_lr"] == 0.01]
    trunk, branch = wsd
    assert [trunk.recipe.schedule.kind, branch.recipe.schedule.kind] == ["constant", "cooldown"]
    assert branch.parents["start"] == trunk.checkpoint(15).ref
    assert trunk.name == next(track.name for track in plan.tracks if track.columns["run"] == "trunk")
    assert not trunk.row(15)["final"]
    assert branch.row(20)["final"]
    assert branch.row(20)["schedule"] == "wsd"


def test_extending_a_trunk_keeps_its_identity_and_adds_checkpoints(tiny, planned):
    before = {node.name: node.fingerprint for node in planned(tiny).of_kind("checkpoint")}
    tiny["runs"]["trunk"]["tokens"] = 1920
    after = {node.name: node.fingerprint for node in planned(tiny).of_kind("checkpoint")}
    assert before.items() < after.items()


def test_a_cosine_run_depends_on_its_horizon(tiny, planned):
    tiny["runs"] = {"cosine": {"schedule": {"kind": "cosine", "warmup": 64}, "tokens": [640, 1280]}}
    tiny |= {"averages": {}, "figures": {}}
    assert len({track.name for track in planned(tiny).tracks}) == 2


def test_every_parent_is_in_the_plan_and_comes_first(tiny, planned):
    seen = set()
    for node in planned(tiny).nodes:
        assert {(ref.kind, ref.name) for ref in node.parents.values()} <= seen
        seen.add((node.kind, node.name))


def test_jobs_hold_each_node_once_and_a_job_has_one_trajectory(tiny, planned):
    plan = planned(tiny)
    jobs = [job for kind in KINDS for job in plan.jobs(kind)]
    names = [f"{node.kind}/{node.name}" for job in jobs for node in job.nodes]
    assert sorted(names) == sorted(f"{node.kind}/{node.name}" for node in plan.nodes)
    for job in plan.jobs("checkpoint"):
        assert len({node.name.partition("/")[0] for node in job.nodes}) == 1


def test_lawa_has_full_windows_only(tiny, planned):
    tiny["averages"]["lawa"] |= {"window": 3, "every": 320, "checkpoints": {"every": 320}}
    averages = planned(tiny).of_kind("average")
    assert all(len(node.parents) == 3 for node in averages)
    assert [node.parents["member.0"].name[-4:] for node in averages] == ["0005", "0010"]


def test_a_table_row_says_what_was_measured(tiny, planned):
    table = next(node for node in planned(tiny).of_kind("table") if node.name == "tiny/loss")
    columns = table.recipe["rows"][-1]["columns"]
    assert (
        columns
        | {
            "run": "lawa",
            "source": "average",
            "average": "lawa",
            "window": 2,
            "tokens": 1280,
            "lr": 0.01,
            "quantizer": "gptq-w4",
            "bits": 4,
            "optimizer": "adamw",
            "schedule": "constant",
        }
        == columns
    )


def test_the_metrics_of_a_shared_trajectory_are_those_of_the_run_that_follows_it_furthest(tiny, planned):
    plan = planned(tiny)
    (table,) = [node for node in plan.of_kind("table") if node.name.endswith("/metrics")]
    steps = [
        row["columns"]["step"] for row in table.recipe["rows"] if row["columns"]["trajectory"] == plan.tracks[0].name
    ]
    assert steps == [20]


def test_what_no_evaluation_measures_is_named_by_section(tiny, planned):
    assert planned(tiny).unmeasured == {}
    tiny["evaluations"]["loss"] |= {"quantizers": ["rtn-w3"], "averages": []}
    tiny["evaluations"]["of-none"] = {"measure": {"kind": "loss"}, "runs": [], "averages": []}
    given = {"source": {"kind": "hub", "id": "some/model"}, "parameters": 1000, "tokens": "1M"}
    tiny["evaluations"]["loss"]["runs"] = ["trunk", "wsd"]
    plan = planned(tiny | {"pretrained": {"given": given}})
    assert plan.unmeasured == {
        "quantizers": ["gptq-w4"],
        "averages": ["lawa"],
        "pretrained": ["given"],
        "evaluations": ["of-none"],
    }
    assert {node.recipe["method"]["kind"] for node in plan.of_kind("quantized")} == {"rtn"}
