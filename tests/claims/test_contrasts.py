"""How runs are paired."""

import pandas as pd
import pytest

from coolbits.claims.contrasts import by_seed

Runs = list[tuple[int, int]]  # of each run, seed and order of the data


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
