"""The words of a study's rows, on a study with a trunk shared by two runs, a wsd run, a cosine run and averages."""

from typing import Any

import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.rows import averages, decays, ends, full_precision, of_quantizer, quantizers, runs, trunks
from coolbits.settings import best_settings, by_seed, main_rows, main_setting
from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

M = 1_000_000
TRUNK = {"run": "trunk", "trajectory": "t", "family": "t", "schedule": "constant", "phase": "stable"}
DECAY = {"decay_tokens": 1 * M, "decay_shape": "linear", "final_fraction": 0.0}
COOLDOWN = {"run": "trunk", "family": "t", "schedule": "cooldown", "phase": "decay"} | DECAY
WSD = {"run": "rates", "family": "w", "schedule": "wsd", "budget_tokens": 5 * M, "peak_lr": 3e-2}

Runs = list[tuple[int, int]]  # of each run, seed and order of the data


def _row(tokens: int, **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = dict.fromkeys(TRAJECTORY_COLUMNS | MODEL_COLUMNS)
    base |= {"model": "m", "optimizer": "adamw", "weight_decay": 0.1, "peak_lr": 1e-2, "seed": 0, "final": False}
    base |= {"states": "32", "beta2": 0.95}
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
    rows += [_row(5 * M + 200, **WSD, **DECAY, trajectory="w-end", phase="decay", final=True)]
    cosine = {"run": "cosine", "trajectory": "c", "family": "c", "schedule": "cosine", "phase": "decay"}
    cosine |= {"decay_tokens": 4.9 * M, "decay_shape": "cosine", "final_fraction": 0.1}
    rows += [_row(tokens * M, **cosine, budget_tokens=5 * M, final=tokens == 5) for tokens in (2, 5)]
    rows += [_row(4 * M, **TRUNK | {"run": "lawa"}, source="average", average="lawa", window=5)]
    return pd.DataFrame(rows).astype(TRAJECTORY_COLUMNS | MODEL_COLUMNS)


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


def test_a_run_says_what_its_decay_was(table: pd.DataFrame) -> None:
    whole = runs(table)
    names = {path: set(rows.decay) for path, rows in whole.groupby("path")}
    linear = {"linear over 1M to 0"}
    assert names == {"b2": linear, "b4": linear, "w-end": linear, "c": {"cosine to 0.1"}}


def test_the_main_rows_have_decays_of_one_kind(table: pd.DataFrame) -> None:
    longer = {"trajectory": "b4-long", "branch_tokens": 4 * M, "budget_tokens": 6 * M, "decay_tokens": 2 * M}
    more = pd.DataFrame([_row(6 * M, **COOLDOWN | longer, final=True)]).astype(TRAJECTORY_COLUMNS | MODEL_COLUMNS)
    both = pd.concat([table, more], ignore_index=True)
    assert set(decays(main_rows(both)).trajectory) == {"b2", "b4"}
    assert set(decays(main_rows(both, every_decay=True)).trajectory) == {"b2", "b4", "b4-long"}


def test_decays_of_one_share_of_their_runs_are_alike(table: pd.DataFrame) -> None:
    branches = table.trajectory.isin(["b2", "b4"])
    shares = table.assign(decay_tokens=table.decay_tokens.mask(branches, round(0.2 * table.budget_tokens)))
    assert set(decays(main_rows(shares)).trajectory) == {"b2", "b4"}


def test_states_are_part_of_the_setting_and_32_bits_come_first(table: pd.DataFrame) -> None:
    low = table.assign(states="8L", trajectory=table.trajectory + "-8l", family=table.family + "-8l")
    both = pd.concat([low, table], ignore_index=True)
    assert main_setting(both)["states"] == "32"
    assert set(main_rows(both).states) == {"32"}


def test_an_optimizer_without_beta2_keeps_its_rows(table: pd.DataFrame) -> None:
    sgd = table.assign(optimizer="sgd", beta2=float("nan"))
    setting = main_setting(sgd)
    assert setting["optimizer"] == "sgd" and pd.isna(setting["beta2"])
    assert set(main_rows(sgd).trajectory) == {"t", "b2", "b4"}
    assert best_settings(ends(sgd).assign(base_loss=1.0)).beta2.isna().all()


def _finished(*runs: tuple[str, float | None, float, int, float]) -> pd.DataFrame:
    columns = ["states", "beta2", "peak_lr", "seed", "base_loss"]
    return pd.DataFrame(runs, columns=columns).assign(optimizer="adamw", weight_decay=0.1)


def test_the_best_setting_is_found_for_each_precision_of_the_states() -> None:
    best = best_settings(
        _finished(
            *[("32", 0.95, 1e-2, 0, 3.0), ("32", 0.999, 1e-2, 0, 2.9), ("32", 0.999, 3e-2, 0, 3.1)],
            *[("8D", 0.95, 1e-2, 0, 3.2), ("8D", 0.95, 3e-2, 0, 3.0)],
        )
    ).set_index("states")
    assert best.peak_lr.to_dict() == {"32": 1e-2, "8D": 3e-2}
    assert best.beta2.to_dict() == {"32": 0.999, "8D": 0.95}


def test_settings_are_compared_on_the_seeds_that_most_of_them_have() -> None:
    """The chosen rate ran with a second, worse seed; a rate that ran once must not win by that."""
    once, chosen = ("32", 0.95, 3e-2, 0, 3.0), ("32", 0.95, 1e-2, 0, 2.9)
    best = best_settings(_finished(once, chosen, ("32", 0.95, 1e-2, 1, 3.3)))
    assert best.peak_lr.tolist() == [1e-2]


def test_a_setting_at_which_a_run_diverged_is_not_the_best_unless_all_did() -> None:
    nan = float("nan")
    rough, calm = [("8L", 0.95, 3e-2, 0, 2.5), ("8L", 0.95, 3e-2, 1, nan)], [("8L", 0.95, 1e-2, 0, 2.8)]
    calm += [("8L", 0.95, 1e-2, 1, 2.8)]
    assert best_settings(_finished(*rough, *calm)).peak_lr.tolist() == [1e-2]
    assert best_settings(_finished(*rough)).peak_lr.tolist() == [3e-2]
    assert best_settings(_finished(rough[1])).empty


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
    assert set(of_quantizer(both.drop(columns="scored_tokens"), "gptq-w3").measure) == {"loss", "validation"}


def _pairs(first: Runs, second: Runs) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The pairs of runs, in order."""
    rows = [
        pd.DataFrame(runs, columns=["seed", "data_seed"], index=range(7, 7 + len(runs))) for runs in (first, second)
    ]
    one, other = ([tuple(row) for row in paired.to_numpy().tolist()] for paired in by_seed(*rows))
    return list(zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ([(0, 0), (1, 1)], [(1, 1), (0, 0), (2, 2)], [((0, 0), (0, 0)), ((1, 1), (1, 1))]),
        ([(0, 5), (0, 6)], [(0, 6), (0, 5)], [((0, 5), (0, 5)), ((0, 6), (0, 6))]),
        ([(0, 0), (0, 100), (0, 101)], [(0, 0)], [((0, 0), (0, 0))]),
        ([(0, 5), (1, 1)], [(0, 6), (0, 7), (1, 1)], [((0, 5), (0, 6)), ((0, 5), (0, 7)), ((1, 1), (1, 1))]),
        ([(0, 0)], [(1, 1)], []),
        ([], [(1, 1)], []),
    ],
    ids=["seeds", "orders", "an order that one has", "no order in common", "no seed in common", "nothing"],
)
def test_runs_are_paired_by_seed_and_order_of_the_data(first: Runs, second: Runs, pairs: list[object]) -> None:
    assert _pairs(first, second) == pairs


def test_without_orders_seeds_are_enough() -> None:
    first, second = pd.DataFrame({"seed": [0, 1]}), pd.DataFrame({"seed": [1, 0]})
    one, other = by_seed(first, second)
    assert one.seed.tolist() == other.seed.tolist() == [0, 1]
