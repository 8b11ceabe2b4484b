"""The section `finetuning`: starts, grids, names, columns; and that nothing else changes by it."""

import json
from pathlib import Path
from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.cost import study_cost
from coolbits.study.durations import job_seconds
from coolbits.study.load import parse_study
from coolbits.study.plan import KINDS, Plan, resolve
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

QA: dict[str, Any] = {
    "start": {"run": "wsd"},
    "data": {"kind": "embedded", "examples": 100},
    "optimizer": {"preset": ["AdamW-32", "Muon-8L"], "weight_decay": 0},
    "peak_lr": 1e-3,
    "schedule": {"kind": "cosine", "warmup": "10%"},
    "batch_examples": 8,
    "sequence_length": 16,
}
HUB = {"id": "someone/Some-3B", "parameters": 3_000_000, "tokens": "9T"}


@pytest.fixture
def tuned(tiny: dict[str, Any]) -> dict[str, Any]:
    """The tiny study with a fine-tuning, free to change."""
    return tiny | {"finetuning": {"qa": json.loads(json.dumps(QA))}}


def rows(plan: Plan, table: str) -> list[dict[str, Any]]:
    node = next(node for node in plan.of_kind("table") if node.name.endswith(f"/{table}"))
    return [row["columns"] for row in node.recipe["rows"]]


def test_every_end_of_the_run_is_fine_tuned_with_every_optimizer(tuned: Any, planned: Any) -> None:
    plan = planned(tuned)
    nodes = plan.of_kind("finetuned")
    ends = {track.name for track in plan.tracks if track.columns["run"] == "wsd" and track.ends_run}
    assert {node.parents["start"].name.partition("/")[0] for node in nodes} == ends
    assert len(nodes) == 2 * len(ends) == 4
    assert {node.recipe["optimizer"]["kind"] for node in nodes} == {"adamw", "muon"}
    assert {node.recipe["optimizer"]["weight_decay"] for node in nodes} == {0}
    assert len({node.parents["conversations"].name for node in nodes}) == len(plan.of_kind("conversations")) == 1


def test_shares_of_the_run_become_steps(tuned: Any, planned: Any) -> None:
    tuned["finetuning"]["qa"] |= {"epochs": 2, "validations": 4}
    recipe = planned(tuned).of_kind("finetuned")[0].recipe
    assert recipe["steps"] == 26  # 13 a epoch, the last of them short
    assert recipe["schedule"] == {"kind": "cosine", "warmup_steps": 3, "total_steps": 26, "final_fraction": 0.0}
    assert recipe["validate_steps"] == 7


def test_only_ends_at_so_many_tokens_can_be_asked_for(tuned: Any, planned: Any) -> None:
    tuned["finetuning"]["qa"]["start"] = {"run": "trunk", "tokens": 960}
    (start,) = {node.parents["start"].name for node in planned(tuned).of_kind("finetuned")}
    assert start.endswith("step_0000015")
    tuned["finetuning"]["qa"]["start"] = {"run": "trunk", "tokens": 970_000}
    with pytest.raises(CoolbitsError, match=r"finetuning\.qa\.start\.tokens: no trajectory of 'trunk' ends at 970000"):
        planned(tuned)


def test_a_point_has_every_column_of_a_table(tuned: Any, planned: Any) -> None:
    found = rows(planned(tuned), "finetuning")
    for columns in found:
        assert set(TRAJECTORY_COLUMNS | MODEL_COLUMNS) <= set(columns)
    expected = {"run": "qa", "source": "finetuned", "phase": "decay", "final": True, "step": 13, "tokens": 1280}
    expected |= {"schedule": "cosine", "peak_lr": 1e-3, "seed": 0, "data_seed": 0, "quantizer": "none"}
    assert all(expected.items() <= columns.items() for columns in found)
    assert {(columns["optimizer"], columns["states"]) for columns in found} == {("adamw", "32"), ("muon", "8L")}


def test_fine_tuned_models_are_quantized_and_scored_like_checkpoints(tuned: Any, planned: Any) -> None:
    tuned["evaluations"] = {"loss": tuned["evaluations"]["loss"] | {"runs": ["qa"]}}
    plan = planned(tuned | {"figures": {}})
    models = {node.parents["model"].kind for node in [*plan.of_kind("quantized"), *plan.of_kind("evaluation")]}
    assert models >= {"finetuned"}
    of_qa = [columns for columns in rows(plan, "loss") if columns["source"] == "finetuned"]
    assert {columns["quantizer"] for columns in of_qa} == {"none", "rtn-w3", "gptq-w4"}
    assert {columns["run"] for columns in rows(plan, "loss") if columns["source"] == "checkpoint"} == set()


def test_an_evaluation_of_what_is_not_there_names_what_is(tuned: Any, planned: Any) -> None:
    tuned["evaluations"]["loss"]["runs"] = ["qb"]
    with pytest.raises(CoolbitsError, match=r"evaluations\.loss\.runs: no 'qb'; there are trunk, wsd, qa"):
        planned(tuned)


def test_claims_are_judged_on_its_table_and_say_its_scale(tiny: Any, tuned: Any, planned: Any) -> None:
    wanted = {"claims": ["decay-raises-error", "finetuning-muon-8l-trains-as-well"]}
    (without,), (with_it,) = (planned(raw | wanted).of_kind("claims") for raw in (tiny, tuned))
    assert with_it.parents.keys() - without.parents.keys() == {"finetuning"}
    assert with_it.recipe["scale"].startswith(without.recipe["scale"] + "; ")
    assert with_it.recipe["scale"].endswith(" parameters, 100 conversations, 1 seed")


def test_nothing_else_changes(tiny: Any, tuned: Any, planned: Any) -> None:
    """What a study has without fine-tuning it has with it, under the same fingerprints."""
    one, other = ({(node.kind, node.name): node.fingerprint for node in planned(raw).nodes} for raw in (tiny, tuned))
    own = ("table", "figure", "claims")  # they hold all rows of the study
    shared = {key: value for key, value in one.items() if key[0] not in own}
    assert shared.items() <= other.items()
    added = {kind for kind, name in other.keys() - one.keys()}
    assert added == {"conversations", "finetuned", "quantized", "evaluation", "table"}


def test_every_parent_comes_first_and_jobs_hold_each_node_once(tuned: Any, planned: Any) -> None:
    plan = planned(tuned)
    seen = set()
    for node in plan.nodes:
        assert {(ref.kind, ref.name) for ref in node.parents.values()} <= seen
        seen.add((node.kind, node.name))
    names = [(node.kind, node.name) for kind in KINDS for job in plan.jobs(kind) for node in job.nodes]
    assert len(names) == len(set(names)) == len(plan.nodes)


def test_entries_that_share_fine_tunings_have_rows_of_their_own_and_points_that_do_have_one(
    tuned: Any, planned: Any
) -> None:
    qa = tuned["finetuning"]["qa"]
    tuned["finetuning"]["again"] = json.loads(json.dumps(qa))
    qa["schedule"] = [{"kind": "cosine", "warmup": warmup} for warmup in ("10%", "9%")]  # 1 step of 13 each
    plan = planned(tuned)
    assert len(plan.of_kind("finetuned")) == 4
    assert [row["run"] for row in rows(plan, "finetuning")] == ["qa"] * 4 + ["again"] * 4


@pytest.mark.parametrize(("together", "jobs"), [("trajectory", 4), ("family", 2), ("run", 1)])
def test_fine_tunings_share_jobs_as_trajectories_do(tuned: Any, planned: Any, together: str, jobs: int) -> None:
    tuned["execution"] = {"training_jobs": together}
    assert len(planned(tuned).jobs("finetuned")) == jobs


def test_a_model_of_the_hub_needs_no_pretraining_run(tuned: Any, planned: Any, tmp_path: Path) -> None:
    tokenizer = {"kind": "hub", "id": HUB["id"], "vocabulary_size": 300}
    raw = {name: tuned[name] for name in ("study", "quantizers", "evaluations", "finetuning")}
    raw |= {"data": {"tokenizer": tokenizer}, "figures": {"finetuning": {"figure": "finetuning"}}}
    raw["finetuning"]["qa"] |= {"start": {"hub": HUB}, "seed": [42, 43]}
    plan = planned(raw)
    (node, *others) = plan.of_kind("finetuned")
    assert len(others) == 3
    assert set(node.parents) == {"conversations", "tokenizer"}
    assert node.recipe["hub"] == {"id": HUB["id"], "revision": "main", "parameters": 3_000_000}
    found = rows(plan, "finetuning")
    assert {columns["seed"] for columns in found} == {42, 43}
    assert {(columns["model"], columns["tokens"], columns["start"]) for columns in found} == {
        ("some-3b", 9 * 10**12, HUB["id"])
    }
    (figure,) = plan.of_kind("figure")
    assert figure.recipe["scale"] == "tiny: 3M parameters, 100 conversations, 2 seeds"
    (job, *_) = plan.jobs("evaluation")
    assert job_seconds(job, plan) > 0 and study_cost(plan, ()).bytes > 4 * 4 * 3_000_000


def test_a_model_of_the_hub_brings_its_tokenizer(tuned: Any, planned: Any) -> None:
    tuned["finetuning"]["qa"]["start"] = {"hub": HUB}
    with pytest.raises(CoolbitsError, match=r"finetuning\.qa\.start\.hub: .*\{kind: hub, id: someone/Some-3B\}"):
        planned(tuned)


def test_files_enter_by_their_digest(tuned: Any, tmp_path: Path) -> None:
    tuned["finetuning"]["qa"]["data"] = {"kind": "files", "paths": ["chat.jsonl"], "examples": 10}
    with pytest.raises(CoolbitsError, match=r"finetuning\.qa\.data\.paths: .*chat\.jsonl is no file"):
        resolve(parse_study(tuned), tmp_path)
    (tmp_path / "chat.jsonl").write_text("one")
    plan = resolve(parse_study(tuned), tmp_path)
    (source,) = (node.recipe["source"] for node in plan.of_kind("conversations"))
    assert plan.locations[source["sha256"][0]] == [str(tmp_path / "chat.jsonl")]
    assert source["names"] == ["chat.jsonl"] and "paths" not in source


def test_files_go_by_the_name_that_the_study_gives_them_and_must_be_of_a_kind_that_is_read(
    tuned: Any, tmp_path: Path
) -> None:
    (tmp_path / "0123abcd").write_text("one")
    for name in ("chat.jsonl", "chat.csv"):
        (tmp_path / name).symlink_to("0123abcd")
    tuned["finetuning"]["qa"]["data"] = {"kind": "files", "paths": ["chat.jsonl"], "examples": 10}
    plan = resolve(parse_study(tuned), tmp_path)
    (source,) = (node.recipe["source"] for node in plan.of_kind("conversations"))
    assert source["names"] == ["chat.jsonl"]
    tuned["finetuning"]["qa"]["data"]["paths"] = ["chat.csv"]
    with pytest.raises(CoolbitsError, match=r"qa\.data\.paths: chat\.csv ends in none of \.txt, \.jsonl"):
        resolve(parse_study(tuned), tmp_path)


def test_conversations_fit_the_positions_that_a_model_learns(tuned: Any, planned: Any) -> None:
    tuned["defaults"] = tuned["defaults"] | {"model": {"preset": "micro-gpt2"}}
    assert planned(tuned).of_kind("finetuned")
    tuned["finetuning"]["qa"]["sequence_length"] = 4096
    with pytest.raises(
        CoolbitsError, match=r"qa\.sequence_length: 4096 tokens, but the model of run 'wsd' has 16 posi"
    ):
        planned(tuned)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": {"run": "none"}}, r"finetuning\.qa\.start\.run: no run 'none'; runs are trunk, wsd"),
        ({"start": {}}, r"finetuning\.qa\.start: a start is either `run`"),
        ({"start": {"hub": HUB, "tokens": 9}}, r"`tokens` chooses among the ends of a `run`"),
        ({"schedule": {"kind": "cosine", "warmup": "100k"}}, r"'100k' is no share of the run"),
        (
            {"schedule": {"kind": "cosine", "warmup": "99%"}},
            r"finetuning\.qa\.schedule\.warmup: all of the 13 steps; take a smaller share",
        ),
        ({"optimizer": "Adam-8"}, r"finetuning\.qa\.optimizer: no 'Adam-8'; allowed are"),
        ({"loss_on": "first"}, r"finetuning\.qa\.loss_on"),
        ({"packing": True}, r"finetuning\.qa\.unknown key 'packing'|unknown key 'packing'"),
    ],
)
def test_mistakes_are_named(tuned: Any, tmp_path: Path, changes: Any, message: str) -> None:
    tuned["finetuning"]["qa"] |= changes
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(tuned))
    from coolbits.study.plan import make_plan

    with pytest.raises(CoolbitsError, match=message):
        make_plan(path)
