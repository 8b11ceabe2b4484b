import re

import pytest

from coolbits.study.show import print_plan

CLASSIFIER = {
    "model": {"preset": "resnet-micro"},
    "optimizer": {"kind": "sgd"},
    "schedule": {"kind": "cosine", "warmup": "5%"},
    "peak_lr": 0.01,
    "epochs": 1,
    "batch_images": 4,
}


@pytest.fixture
def lines(tiny, planned, finish, tmp_path, capsys, monkeypatch):
    """The printed plan of the tiny study, its corpus made, as on a pipe of a narrow window."""
    monkeypatch.setenv("COLUMNS", "40")
    plan = planned(tiny)
    finish(plan, plan.of_kind("corpus")[0])
    print_plan(plan, tmp_path)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_every_node_has_a_line_with_its_whole_name(lines, tiny, planned):
    nodes = planned(tiny).nodes
    assert max(len(node.name) for node in nodes) > 80
    assert lines[0] == ["kind", "name", "state"]
    assert [line[:2] for line in lines[1 : len(nodes) + 1]] == [[node.kind, node.name] for node in nodes]
    assert [line[2:] for line in lines[1:3]] == [["exists"], ["to", "make"]]


def test_the_totals_follow(lines, tiny, planned):
    totals = {" ".join(line) for line in lines[len(planned(tiny).nodes) + 2 :]}
    assert "corpus 1 node in 1 job, 1 exist" in totals
    assert any(total.startswith("to train 3.52k of 3.52k tokens") for total in totals)
    assert any(total.startswith("sharing saves 45% of") and "(6.4k tokens)" in total for total in totals)
    assert any(re.fullmatch(r"takes about [0-9.]+ core hours in all, its longest job \d+ s", total) for total in totals)
    assert any(total.startswith("disk of text, models, images") for total in totals)


def print_of(plan, tmp_path, capsys):
    print_plan(plan, tmp_path)
    return {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}


def test_classifiers_have_flops_and_no_tokens(tiny, planned, tmp_path, capsys):
    vision = {"study": "seen", "vision": {"digits": CLASSIFIER}}
    (training,) = (line for line in print_of(planned(vision), tmp_path, capsys) if line.startswith("to train"))
    assert re.fullmatch(r"to train \d\.\d\de\+\d+ FLOPs in all, on images", training)
    (training,) = (
        line
        for line in print_of(planned(tiny | {"vision": vision["vision"]}), tmp_path, capsys)
        if line.startswith("to train")
    )
    assert re.search(r"tokens, \d\.\d\de\+\d+ FLOPs in all, \d\.\d\de\+\d+ of them on images$", training)


def test_gpu_hours_are_told_where_gpus_are_asked_for(tiny, planned, tmp_path, capsys):
    lines = print_of(planned(tiny | {"execution": {"device": "cuda"}}), tmp_path, capsys)
    assert any(re.match(r"takes about [0-9.]+ GPU hours and [0-9.]+ core hours in all, ", line) for line in lines)


def test_a_study_that_trains_nothing_says_so(planned, tmp_path, capsys):
    given = {"source": {"kind": "hub", "id": "some/model"}, "parameters": 1000, "tokens": "1M"}
    study = {"study": "given", "data": {"corpus": {"kind": "embedded"}}, "pretrained": {"one": given}}
    lines = print_of(planned(study), tmp_path, capsys)
    assert "to train nothing" in lines
    assert not any(line.startswith("sharing saves") for line in lines)


def test_what_nothing_measures_is_named(tiny, planned, tmp_path, capsys):
    tiny["evaluations"]["loss"] |= {"quantizers": ["rtn-w3"], "averages": []}
    tiny["evaluations"]["late"] = {"measure": {"kind": "loss"}, "runs": [], "averages": []}
    lines = print_of(planned(tiny), tmp_path, capsys)
    assert "not measured quantizers gptq-w4; averages lawa" in lines
    assert "measures nothing evaluations late" in lines


def test_where_all_is_measured_no_line_says_so(lines):
    assert not any(line[:2] in (["not", "measured"], ["measures", "nothing"]) for line in lines)


def test_the_memory_of_a_gpu_is_told_where_one_is_asked_for(tiny, planned, tmp_path, capsys):
    line = "largest GPU memory about"
    asked = print_of(planned(tiny | {"execution": {"device": "cuda"}}), tmp_path, capsys)
    assert any(re.fullmatch(rf"{line} [0-9.]+ GB", total) for total in asked)
    assert not any(total.startswith(line) for total in print_of(planned(tiny), tmp_path, capsys))


def test_the_disk_of_a_corpus_of_unknown_length_is_told_to_be_a_guess(tiny, planned, tmp_path, capsys):
    def disk(**length):
        corpus = {"kind": "hub", "id": "some/text", **length}
        lines = print_of(planned(tiny | {"data": tiny["data"] | {"corpus": corpus}}), tmp_path, capsys)
        return next(line for line in lines if line.startswith("disk of text, models, images"))

    assert disk().endswith(" GB, 150 GB of it a guess: the study does not say how long the corpus is")
    assert "guess" not in disk(documents=1000)
