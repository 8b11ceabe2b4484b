"""Between two results each difference is said once, whatever names and roles they have, and numbers are compared."""

import json
import random
import shutil

import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.provenance.difference import compare
from coolbits.provenance.differences_page import difference_page
from coolbits.provenance.lineage import trace
from coolbits.provenance.moves import compare_tables
from coolbits.provenance.pairs import match_rows

FIGURE = ("figure", "tiny/tokens")


def difference(one, two, first=FIGURE, second=FIGURE):
    lineages = trace(one.root, [first]), trace(two.root, [second])
    return compare(lineages[0], lineages[0].artifacts[first], lineages[1], lineages[1].artifacts[second])


@pytest.fixture
def other(tmp_path, build, empty):
    """Make another laboratory with these options."""

    def make(**options):
        lab = type(empty)(tmp_path / "other" / "results")
        build(lab, **options)
        return lab

    return make


def test_a_copy_differs_in_nothing(lab, tmp_path):
    copy = type(lab)(shutil.copytree(lab.root, tmp_path / "copy"))
    found = difference(lab, copy)
    assert found.identical
    assert found.pairs == 9
    assert not any(
        (found.recipes, found.inputs, found.code, found.environment, found.unexplained, found.summary, found.alone)
    )
    assert difference_page(found).splitlines()[2] == "equal in content, and made alike"


def test_a_changed_knob_is_said_once_and_the_numbers_that_it_moved(lab, other):
    found = difference(lab, other(bits=4, losses=(2.0, 2.25)))
    assert [(change.what, change.before, change.after) for change in found.recipes] == [
        ("quantized method.grid.bits", "3", "4")
    ]
    assert found.alone == {}
    (moves,) = found.tables
    assert (moves.table, moves.rows, moves.only_first, moves.only_second) == ("table/tiny/loss", 2, 0, 0)
    (loss,) = moves.columns
    assert (loss.column, loss.moved, loss.rows) == ("loss", 1, 2)
    assert loss.largest == ("quantizer q", 2.5, 2.25)


def test_a_field_of_the_run_is_one_change_of_all_its_checkpoints(lab, other):
    found = difference(lab, other(peak_lr=0.02))
    (change,) = found.recipes
    assert (change.what, change.before, change.after, change.kinds) == (
        *("checkpoint trajectory.peak_lr", "0.01", "0.02"),
        {"checkpoint": 1},
    )
    assert "checkpoint trajectory.peak_lr  0.01    0.02   1 checkpoint" in difference_page(found)


def test_code_and_environment_are_compared_entry_by_entry(lab, tmp_path):
    copy = type(lab)(shutil.copytree(lab.root, tmp_path / "copy"))
    for path in copy.root.rglob("record.json"):
        copy.rewrite(path, lambda record: record["environment"]["packages"].update(torch="2.14.0"))
    record = copy.one("quantized") / "record.json"
    copy.rewrite(record, lambda record: record["code"]["modules"].update({"coolbits.ptq.gptq": "0" * 64}))
    copy.rewrite(record, lambda record: record["code"].update(digest="0" * 64))
    found = difference(lab, copy)
    assert found.identical
    assert [(change.what, change.after, change.kinds) for change in found.code] == [
        ("coolbits.ptq.gptq", "00000000", {"quantized": 1})
    ]
    (torch,) = found.environment
    assert (torch.what, torch.before, torch.after, sum(torch.kinds.values())) == ("torch", "2.13.0", "2.14.0", 9)
    assert "equal in content: what differs is only how they came about" in difference_page(found)


def test_other_bytes_from_the_same_recipe_and_inputs_are_pointed_at(lab, other):
    found = difference(lab, other(losses=(2.0, 2.6)))
    assert {change.what for change in found.unexplained} == {"evaluation n"}
    assert found.recipes == []


def test_a_table_with_other_rows_says_how_many(lab, tmp_path):
    copy = type(lab)(shutil.copytree(lab.root, tmp_path / "copy"))
    for name in ("manifest.json", "record.json"):
        copy.rewrite(copy.one("table") / name, lambda values: values.get("manifest", values)["recipe"]["rows"].pop())
    (change,) = difference(lab, copy).inputs
    assert (change.what, change.before, change.after) == ("table/tiny/loss: rows without a counterpart", "1", "0")
    assert difference(lab, copy).alone == {"quantized": (1, 1), "evaluation": (1, 1)}


def row(run, seed, quantizer, peak_lr=0.01, **more):
    columns = {"run": run, "seed": seed, "quantizer": quantizer, "peak_lr": peak_lr, "trajectory": f"t{peak_lr}{seed}"}
    return columns | more


ROWS = [row(run, seed, quantizer) for run in ("a", "b") for seed in (0, 1) for quantizer in ("none", "q")]


def test_rows_match_whatever_their_order_and_names():
    places = list(range(len(ROWS)))
    random.Random(0).shuffle(places)
    moved = [ROWS[place] | {"trajectory": "another"} for place in places]
    assert [places[two] for _, two in match_rows(ROWS, moved)] == list(range(len(ROWS)))


def test_rows_match_though_a_field_changed_for_all_or_for_some():
    every = [row | {"peak_lr": 0.02} for row in ROWS]
    assert match_rows(ROWS, every) == [(place, place) for place in range(len(ROWS))]
    some = [row | {"peak_lr": 0.02 if row["run"] == "b" else 0.01} for row in ROWS]
    assert match_rows(ROWS, some) == [(place, place) for place in range(len(ROWS))]


def test_rows_that_are_in_one_only_match_nothing():
    assert match_rows(ROWS, ROWS[2:]) == [(place + 2, place) for place in range(len(ROWS) - 2)]
    assert match_rows([row("a", 0, "q"), row("a", 1, "q")], [row("b", 1, "q")]) == [(1, 0)]
    assert match_rows([], ROWS) == []


def test_rows_of_a_renamed_run_match():
    renamed = [row | {"run": {"a": "a", "b": "c"}[row["run"]]} for row in ROWS]
    assert match_rows(ROWS, renamed) == [(place, place) for place in range(len(ROWS))]


def test_tables_tell_the_largest_moves_by_difference_and_by_ratio(tmp_path):
    first = pd.DataFrame({"run": ["a", "b", "c"], "outcome": "complete", "loss": [100.0, 1.0, 5.0], "loss_low": 0.0})
    second = first.assign(loss=[104.0, 1.5, 5.0], loss_low=1.0, outcome=["complete", "complete", "diverged"])
    for name, frame in (("one", first), ("two", second.iloc[::-1])):
        (tmp_path / name).mkdir()
        frame.to_parquet(tmp_path / name / "table.parquet", index=False)
    moves = compare_tables("table", tmp_path / "one", tmp_path / "two", {"run"})
    assert (moves.rows, moves.outcomes) == (3, 1)
    (loss,) = moves.columns
    assert (loss.moved, loss.largest, loss.largest_relative) == (2, ("run a", 100.0, 104.0), ("run b", 1.0, 1.5))


def test_numbers_that_are_not_there_do_not_move(tmp_path):
    frame = pd.DataFrame({"run": ["a", "b"], "loss": [float("nan"), 0.0]})
    for name, loss in (("one", [float("nan"), 0.0]), ("two", [1.0, 0.5])):
        (tmp_path / name).mkdir()
        frame.assign(loss=loss).to_parquet(tmp_path / name / "table.parquet", index=False)
    (loss,) = compare_tables("table", tmp_path / "one", tmp_path / "two", {"run"}).columns
    assert (loss.rows, loss.moved, loss.largest) == (1, 1, ("", 0.0, 0.5))


def test_json_has_all_of_it(lab, other):
    read = json.loads(json.dumps(difference(lab, other(bits=4)).to_json()))
    assert read["recipes"][0]["what"] == "quantized method.grid.bits"


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pd.DataFrame({"run": ["a"], "loss": [1.0]}).to_parquet(tmp_path / name / "table.parquet", index=False)
    (tmp_path / "two" / "table.parquet").write_bytes(b"PAR1 no longer")
    with pytest.raises(CoolbitsError, match=r"two/table\.parquet: not readable as a table"):
        compare_tables("table", tmp_path / "one", tmp_path / "two", {"run"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: pd.DataFrame({"loss": [9.0]}).to_parquet(table), "not the file that its manifest declares"),
        (lambda table: table.unlink(), "not readable"),
    ],
)
def test_numbers_are_compared_only_of_tables_that_are_what_was_made(lab, tmp_path, spoil, said):
    copy = type(lab)(shutil.copytree(lab.root, tmp_path / "copy"))
    spoil(copy.one("table") / "table.parquet")
    with pytest.raises(CoolbitsError, match=rf"copy/table/tiny/loss/table\.parquet: {said}"):
        difference(lab, copy)
