"""The words of a study's rows, on a study with a trunk shared by two runs, a wsd run, a cosine run and averages."""

import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.rows import averages, decays, ends, full_precision, of_quantizer, quantizers, runs, trunks

M = 1_000_000


@pytest.fixture
def table(trunk_and_decays: pd.DataFrame) -> pd.DataFrame:
    return trunk_and_decays


def test_a_trunk_shared_by_two_runs_appears_once(table: pd.DataFrame) -> None:
    trunk = trunks(table)
    assert trunk[trunk.family == "t"].tokens.tolist() == [tokens * M for tokens in (1, 2, 3, 4, 5)]
    assert len(averages(table, "lawa")) == 1 and averages(table, "soup").empty


def test_averages_of_checkpoints_that_lie_otherwise_apart_are_kept(table: pd.DataFrame) -> None:
    wide = table[table.source == "average"].assign(run="lawa-wide", base_loss=2.0)
    assert averages(pd.concat([table, wide]), "lawa").run.tolist() == ["lawa", "lawa-wide"]


def test_a_wsd_run_branches_where_its_stable_part_ends(table: pd.DataFrame) -> None:
    assert decays(table).set_index("trajectory").branch_tokens.to_dict() == {"b2": 2 * M, "b4": 4 * M, "w-end": 4 * M}


def test_runs_are_whole(table: pd.DataFrame) -> None:
    whole = runs(table)
    tokens = {path: rows.tokens.tolist() for path, rows in whole.groupby("path")}
    assert tokens["b2"] == [1 * M, 2 * M, 3 * M]
    assert tokens["b4"] == [1 * M, 2 * M, 3 * M, 4 * M, 5 * M]
    assert tokens["w-end"] == [1 * M, 4 * M, 5 * M + 200]
    assert set(whole[whole.path == "b4"].schedule) == {"wsd"}


def test_runs_that_two_entries_share_are_whole_once(table: pd.DataFrame) -> None:
    shared = pd.concat([table, table.assign(run="again")], ignore_index=True)
    pd.testing.assert_frame_equal(runs(shared), runs(table))


def test_budgets_that_differ_by_rounding_to_steps_are_one(table: pd.DataFrame) -> None:
    finished = ends(table).set_index("path")
    assert finished.budget_tokens["w-end"] == finished.budget_tokens["b4"] == finished.budget_tokens["c"] == 5 * M
    assert finished.tokens["w-end"] == 5 * M + 200


def test_quantizers_come_with_the_fewest_bits_first_and_rtn_last(table: pd.DataFrame) -> None:
    more = [("rtn-w3", "rtn", 3), ("gptq-w4", "gptq", 4), ("none", "none", None)]
    others = [table.assign(quantizer=name, method=method, bits=bits) for name, method, bits in more]
    every = pd.concat([*others, table]).astype({"bits": "Int64"})
    assert quantizers(every) == ["gptq-w3", "gptq-w4", "rtn-w3"]
    assert len(of_quantizer(every, "gptq-w4")) == len(table)
    with pytest.raises(CoolbitsError, match=r"'awq'.*gptq-w3, gptq-w4, rtn-w3"):
        of_quantizer(every, "awq")


def test_a_run_says_what_its_decay_was(table: pd.DataFrame) -> None:
    whole = runs(table)
    names = {path: set(rows.decay) for path, rows in whole.groupby("path")}
    linear = {"linear over 1M to 0"}
    assert names == {"b2": linear, "b4": linear, "w-end": linear, "c": {"cosine to 0.1"}}


def test_full_precision_losses_come_from_one_measure(table: pd.DataFrame) -> None:
    itself = table.assign(quantizer="none", measure="loss", scored_tokens=100)
    finals = itself[itself.final.astype(bool)].assign(measure="validation", scored_tokens=900)
    every = pd.concat([itself, finals, table], ignore_index=True)
    assert set(full_precision(every).measure) == {"validation"}
    assert set(full_precision(every[every.measure != "validation"]).measure) == {"loss"}


def test_losses_of_a_quantizer_come_from_the_measure_with_most_models(table: pd.DataFrame) -> None:
    """Ends on other documents than the trunk would look like what a decay does; of tasks all evaluations are kept."""
    every = table.assign(measure="loss", scored_tokens=100)
    finals = every[every.final.astype(bool)].assign(measure="validation", scored_tokens=900)
    both = pd.concat([finals, every], ignore_index=True)
    assert set(of_quantizer(both, "gptq-w3").measure) == {"loss"}
    assert set(of_quantizer(both.assign(task="cloze"), "gptq-w3").measure) == {"loss", "validation"}


def test_predictions_and_landscapes_come_from_one_measure_too(table: pd.DataFrame) -> None:
    """Their tables do not say how many tokens were scored."""
    both = pd.concat([table.assign(measure="wide"), table[table.final.astype(bool)].assign(measure="exact")])
    assert set(of_quantizer(both, "gptq-w3").measure) == {"wide"}
    assert set(full_precision(both.assign(quantizer="none")).measure) == {"wide"}
