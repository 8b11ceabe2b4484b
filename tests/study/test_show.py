import pytest

from coolbits.study.show import print_plan


@pytest.fixture
def lines(tiny, planned, tmp_path, capsys, monkeypatch):
    """The printed plan of the tiny study, its corpus made, as on a pipe of a narrow window."""
    monkeypatch.setenv("COLUMNS", "40")
    plan = planned(tiny)
    corpus = plan.of_kind("corpus")[0].directory(tmp_path)
    corpus.mkdir(parents=True)
    (corpus / "manifest.json").write_text("{}")
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
    assert "corpus 1 nodes in 1 jobs, 1 exist" in totals
    assert any(total.startswith("to train 3.52k of 3.52k tokens") for total in totals)
    assert any(total.startswith("sharing saves 45% of") and "(6.4k tokens)" in total for total in totals)
    assert any(total.startswith("peak disk") for total in totals)
