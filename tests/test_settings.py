"""Which rows compare: the main setting of a study, the best ones of its variants, pairs of runs."""

import pandas as pd
import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.rows import decays, ends, runs
from coolbits.settings import best_settings, by_seed, main_rows, main_setting, of_main_decays

M = 1_000_000

Runs = list[tuple[int, int]]  # of each run, seed and order of the data


@pytest.fixture
def table(trunk_and_decays: pd.DataFrame) -> pd.DataFrame:
    return trunk_and_decays


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


def test_the_main_rows_have_decays_of_one_kind(table: pd.DataFrame) -> None:
    length = {"tokens": 6 * M, "step": 6 * M, "budget_tokens": 6 * M, "decay_tokens": 2 * M}
    longer = table[table.trajectory == "b4"].assign(trajectory="b4-long", **length)
    both = pd.concat([table, longer], ignore_index=True)
    assert set(decays(main_rows(both)).trajectory) == {"b2", "b4"}
    assert set(decays(main_rows(both, every_decay=True)).trajectory) == {"b2", "b4", "b4-long"}


def test_beside_another_schedule_the_decays_are_those_that_end_at_its_budgets(table: pd.DataFrame) -> None:
    """Not those that are most, as paper A's long cooldowns, none of which ends where a cosine run does."""
    fork = table[table.trajectory == "b4"]
    ending = [
        fork.assign(trajectory=f"long-{end}", tokens=end * M, step=end * M, budget_tokens=end * M, decay_tokens=3 * M)
        for end in (7, 8, 9)
    ]
    both = runs(pd.concat([table, *ending], ignore_index=True))
    both = both[both.peak_lr == 1e-2]
    cosine, wsd = of_main_decays(both)
    assert set(wsd.path) == {"b2", "b4"} and set(cosine.path) == {"c"}
    (alone,) = of_main_decays(both[both.schedule == "wsd"])
    assert set(alone.path) == {"long-7", "long-8", "long-9"}


def test_decays_of_one_share_of_their_runs_are_alike(table: pd.DataFrame) -> None:
    branches = table.trajectory.isin(["b2", "b4"])
    shares = table.assign(decay_tokens=table.decay_tokens.mask(branches, round(0.2 * table.budget_tokens)))
    assert set(decays(main_rows(shares)).trajectory) == {"b2", "b4"}


def test_states_are_part_of_the_setting_and_32_bits_come_first(table: pd.DataFrame) -> None:
    low = table.assign(states="8L", trajectory=table.trajectory + "-8l", family=table.family + "-8l")
    both = pd.concat([low, table], ignore_index=True)
    assert main_setting(both)["states"] == "32"
    assert set(main_rows(both).states) == {"32"}


@pytest.mark.parametrize("other", ["muon", "sgd", "adamc"])
def test_of_optimizers_with_as_many_decays_adamw_comes_first(other: str, table: pd.DataFrame) -> None:
    renamed = table.assign(optimizer=other, trajectory=table.trajectory + other, family=table.family + other)
    both = pd.concat([table, renamed], ignore_index=True)
    assert main_setting(both)["optimizer"] == "adamw"
    assert main_setting(both[both.trajectory != "b4"])["optimizer"] == other


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
