"""The section `pretrained`: models that others trained, read with their own tokenizers."""

import json
from pathlib import Path
from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.study.cost import study_cost
from coolbits.study.durations import job_seconds
from coolbits.study.footprint import job_megabytes
from coolbits.study.load import parse_study
from coolbits.study.plan import KINDS, Plan, make_plan, resolve
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

HUB = {"source": {"kind": "hub", "id": "someone/Some-3B"}, "parameters": 3_000_000_000, "tokens": "9T"}


@pytest.fixture
def given(tiny: dict[str, Any]) -> dict[str, Any]:
    """A study of one pretrained model alone, free to change."""
    sections = {name: tiny[name] for name in ("quantizers", "evaluations")}
    return {"study": "given", "data": {}, "pretrained": {"some-3b": json.loads(json.dumps(HUB))}} | sections


def rows(plan: Plan, table: str) -> list[dict[str, Any]]:
    node = next(node for node in plan.of_kind("table") if node.name.endswith(f"/{table}"))
    return [row["columns"] for row in node.recipe["rows"]]


def test_a_study_may_train_nothing(given: Any, planned: Any) -> None:
    plan = planned(given)
    assert [(kind, len(plan.of_kind(kind))) for kind in KINDS if plan.of_kind(kind)] == [
        *(("corpus", 1), ("pretrained", 1), ("tokenizer", 1), ("shards", 1), ("calibration", 1)),
        *(("quantized", 2), ("evaluation", 3), ("table", 2)),
    ]


def test_a_model_is_read_in_tokens_of_its_own_tokenizer(given: Any, planned: Any) -> None:
    given["pretrained"]["other"] = HUB | {"source": HUB["source"] | {"revision": "v2"}, "end_of_text": "<end>"}
    plan = planned(given)
    models = {node.name: node for node in plan.of_kind("pretrained")}
    nodes = {(node.kind, node.name): node for node in plan.nodes}
    assert len(models) == len(plan.of_kind("tokenizer")) == len(plan.of_kind("shards")) == 2
    for node in [*plan.of_kind("quantized"), *plan.of_kind("evaluation")]:
        data = node.parents.get("shards") or node.parents.get("calibration")
        while data is not None and data.kind != "tokenizer":
            parents = nodes[data.kind, data.name].parents
            data = parents.get("shards") or parents["tokenizer"]
        if data is not None:
            assert nodes[data.kind, data.name].parents == {"model": node.parents["model"]}
    endings = {node.recipe["tokenizer"]["end_of_text"] for node in plan.of_kind("tokenizer")}
    assert endings == {None, "<end>"}


def test_what_a_study_trains_keeps_its_own_tokens(given: Any, tiny: Any, planned: Any) -> None:
    """Beside a pretrained model everything else stays as it was, under the same fingerprints."""
    one, other = (
        {(node.kind, node.name): node.fingerprint for node in planned(raw).nodes}
        for raw in (tiny, tiny | {"pretrained": given["pretrained"]})
    )
    shared = {key: value for key, value in one.items() if key[0] not in ("table", "figure")}
    assert shared.items() <= other.items()
    added = {kind for kind, _ in other.keys() - one.keys()}
    assert added == {"pretrained", "tokenizer", "shards", "calibration", "quantized", "evaluation"}


def test_tasks_are_asked_through_its_tokenizer(given: Any, planned: Any) -> None:
    given["evaluations"] = {"tasks": {"measure": {"kind": "tasks", "tasks": ["embedded"]}}}
    plan = planned(given)
    (tokenizer,) = plan.of_kind("tokenizer")
    assert {node.parents["tokenizer"].name for node in plan.of_kind("evaluation")} == {tokenizer.name}


def test_a_row_has_every_column_and_null_where_nothing_is_known(given: Any, planned: Any) -> None:
    found = rows(planned(given), "loss")
    expected = {"run": "some-3b", "model": "some-3b", "source": "pretrained", "final": True, "tokens": 9 * 10**12}
    expected |= {"parameters": 3_000_000_000, "optimizer": None, "seed": None, "peak_lr": None, "step": None}
    for columns in found:
        assert set(TRAJECTORY_COLUMNS | MODEL_COLUMNS) <= set(columns)
        assert expected.items() <= columns.items()
    assert {columns["quantizer"] for columns in found} == {"none", "rtn-w3", "gptq-w4"}


def test_the_figure_of_quantizers_shows_tasks_where_the_study_asks_some(given: Any, planned: Any) -> None:
    given["figures"] = {"quantizers": {"figure": "quantizers"}}
    (figure,) = planned(given).of_kind("figure")
    assert set(figure.parents) == {"loss"}
    given["evaluations"]["tasks"] = {"measure": {"kind": "tasks", "tasks": ["embedded"]}}
    (figure,) = planned(given).of_kind("figure")
    assert set(figure.parents) == {"loss", "tasks"}


def test_evaluations_choose_it_by_name(given: Any, tiny: Any, planned: Any) -> None:
    both = tiny | {"pretrained": given["pretrained"], "figures": {}}
    both["evaluations"]["loss"]["runs"] = ["some-3b"]
    assert {columns["run"] for columns in rows(planned(both), "loss") if columns["source"] != "average"} == {"some-3b"}
    both["evaluations"]["loss"]["runs"] = ["some-4b"]
    with pytest.raises(CoolbitsError, match=r"no 'some-4b'; there are trunk, wsd, some-3b"):
        planned(both)


def test_every_parent_comes_first(given: Any, tiny: Any, planned: Any) -> None:
    seen = set()
    for node in planned(tiny | {"pretrained": given["pretrained"]}).nodes:
        assert {(ref.kind, ref.name) for ref in node.parents.values()} <= seen
        seen.add((node.kind, node.name))


def test_a_gguf_file_enters_by_its_digest(given: Any, tmp_path: Path) -> None:
    given["pretrained"]["some-3b"]["source"] = {"kind": "gguf", "path": "some.gguf"}
    with pytest.raises(CoolbitsError, match=r"pretrained\.some-3b\.source\.path: .*some\.gguf is no file"):
        resolve(parse_study(given), tmp_path)
    file = tmp_path / "some.gguf"
    file.write_text("weights")
    plan = resolve(parse_study(given), tmp_path)
    (node,) = plan.of_kind("pretrained")
    assert node.recipe["source"] == {"kind": "gguf", "sha256": file_digest(file)}
    assert plan.locations[f"pretrained/{node.name}"] == [str(file)]


def test_a_directory_enters_by_the_digests_of_what_is_read_of_it(given: Any, tmp_path: Path) -> None:
    given["pretrained"]["some-3b"]["source"] = {"kind": "directory", "path": "some"}
    folder = tmp_path / "some"
    folder.mkdir()
    template = "additional_chat_templates/tools.jinja"
    (folder / template).parent.mkdir()
    for name in ("config.json", "tokenizer.json", template, "README.md", "modeling.py"):
        (folder / name).write_text(name)
    with pytest.raises(CoolbitsError, match="holds no safetensors"):
        resolve(parse_study(given), tmp_path)
    (folder / "model.safetensors").write_text("weights")
    plan = resolve(parse_study(given), tmp_path)
    (node,) = plan.of_kind("pretrained")
    assert node.recipe["source"]["names"] == [template, "config.json", "model.safetensors", "tokenizer.json"]
    assert plan.locations[f"pretrained/{node.name}"] == [str(folder)]


def test_costs_are_estimated(given: Any, planned: Any, tmp_path: Path) -> None:
    plan = planned(given)
    assert study_cost(plan, ()).bytes > 4 * 3_000_000_000
    for kind in ("pretrained", "quantized", "evaluation"):
        (job,) = plan.jobs(kind)
        assert job_seconds(job, plan) > 10
        assert job_megabytes(job, plan) > 2 * 4 * 3_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "data: missing; it is required"),
        ({"pretrained": {"some": HUB | {"tokens": None}}}, r"pretrained\.some\.tokens"),
        ({"pretrained": {"some": HUB | {"trust_remote_code": True}}}, "unknown key 'trust_remote_code'"),
        ({"pretrained": {"some": HUB | {"source": {"kind": "wheel"}}}}, r"pretrained\.some\.source"),
    ],
)
def test_mistakes_are_named(given: Any, tmp_path: Path, changes: Any, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({key: value for key, value in (given | changes).items() if value is not None}))
    with pytest.raises(CoolbitsError, match=message):
        make_plan(path)


def test_runs_need_a_tokenizer_and_names_of_their_own(tiny: Any, given: Any, planned: Any) -> None:
    with pytest.raises(CoolbitsError, match=r"pretrained\.trunk: a run has this name"):
        planned(tiny | {"pretrained": {"trunk": HUB}})
    with pytest.raises(CoolbitsError, match=r"data\.tokenizer: missing; it is required for runs"):
        planned(tiny | {"data": {}})
