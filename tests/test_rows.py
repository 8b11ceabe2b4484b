"""The words of a study's rows, on a study with a trunk shared by two runs, a wsd run, a cosine run and averages."""

from typing import Any

import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.rows import averages, decays, ends, main_rows, main_setting, of_quantizer, quantizers, runs, trunks
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

M = 1_000_000
TRUNK = {"run": "trunk", "trajectory": "t", "family": "t", "schedule": "constant", "phase": "stable"}
COOLDOWN = {"run": "trunk", "family": "t", "schedule": "cooldown", "phase": "decay"}
WSD = {"run": "rates", "family": "w", "schedule": "wsd", "budget_tokens": 5 * M, "peak_lr": 3e-2}


def _row(tokens: int, **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = dict.fromkeys(TRAJECTORY_COLUMNS | MODEL_COLUMNS)
    base |= {"model": "m", "optimizer": "adamw", "weight_decay": 0.1, "peak_lr": 1e-2, "seed": 0, "final": False}
    base |= {"source": "checkpoint", "quantizer": "gptq-w3", "method": "gptq", "bits": 3}
    return base | {"tokens": tokens, "step": tokens} | fields


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [_row(tokens * M, **TRUNK) for tokens in (1, 2, 3, 4, 5)]
    rows += [_row(2 * M, **TRUNK | {"run": "soup"})]
    for start in (2, 4):
        branch = COOLDOWN | {"trajectory": f"b{start}", "branch_tokens": start * M, "budget_tokens": (start + 1) * M}
        rows += [_row((start + 1) * M, **branch, final=True)]
    rows += [_row(tokens * M, **WSD, trajectory="w", phase="stable") for tokens in (1, 4)]
    rows += [_row(5 * M + 200, **WSD, trajectory="w-end", phase="decay", final=True)]
    cosine = {"run": "cosine", "trajectory": "c", "family": "c", "schedule": "cosine", "phase": "decay"}
    rows += [_row(tokens * M, **cosine, budget_tokens=5 * M, final=tokens == 5) for tokens in (2, 5)]
    rows += [_row(4 * M, **TRUNK | {"run": "lawa"}, source="average", average="lawa", window=5)]
    return pd.DataFrame(rows).astype(TRAJECTORY_COLUMNS | MODEL_COLUMNS)


def test_a_trunk_shared_by_two_runs_appears_once(table: pd.DataFrame) -> None:
    trunk = trunks(table)
    assert trunk[trunk.family == "t"].tokens.tolist() == [tokens * M for tokens in (1, 2, 3, 4, 5)]
    assert len(averages(table, "lawa")) == 1 and averages(table, "soup").empty


def test_a_wsd_run_branches_where_its_stable_part_ends(table: pd.DataFrame) -> None:
    assert decays(table).set_index("trajectory").branch_tokens.to_dict() == {"b2": 2 * M, "b4": 4 * M, "w-end": 4 * M}


def test_runs_are_whole(table: pd.DataFrame) -> None:
    whole = runs(table)
    tokens = {path: rows.tokens.tolist() for path, rows in whole.groupby("path")}
    assert tokens["b2"] == [1 * M, 2 * M, 3 * M]
    assert tokens["b4"] == [1 * M, 2 * M, 3 * M, 4 * M, 5 * M]
    assert tokens["w-end"] == [1 * M, 4 * M, 5 * M + 200]
    assert set(whole[whole.path == "b4"].schedule) == {"wsd"}


def test_budgets_that_differ_by_rounding_to_steps_are_one(table: pd.DataFrame) -> None:
    finished = ends(table).set_index("path")
    assert finished.budget_tokens["w-end"] == finished.budget_tokens["b4"] == finished.budget_tokens["c"] == 5 * M
    assert finished.tokens["w-end"] == 5 * M + 200


def test_the_main_rows_are_those_with_the_most_decays(table: pd.DataFrame) -> None:
    assert main_setting(table)["peak_lr"] == 1e-2
    main = main_rows(table)
    assert set(main.trajectory) == {"t", "b2", "b4"}
    assert (main.average == "lawa").sum() == 1


def test_without_decays_there_is_no_main_setting(table: pd.DataFrame) -> None:
    constant = table[table.schedule == "constant"]
    assert main_rows(constant).empty
    with pytest.raises(CoolbitsError, match="no cooldown"):
        main_setting(constant)


def test_quantizers_come_with_the_fewest_bits_first_and_rtn_last(table: pd.DataFrame) -> None:
    more = [("rtn-w3", "rtn", 3), ("gptq-w4", "gptq", 4), ("none", "none", None)]
    others = [table.assign(quantizer=name, method=method, bits=bits) for name, method, bits in more]
    every = pd.concat([*others, table]).astype({"bits": "Int64"})
    assert quantizers(every) == ["gptq-w3", "gptq-w4", "rtn-w3"]
    assert len(of_quantizer(every, "gptq-w4")) == len(table)
    with pytest.raises(CoolbitsError, match=r"'awq'.*gptq-w3, gptq-w4, rtn-w3"):
        of_quantizer(every, "awq")
