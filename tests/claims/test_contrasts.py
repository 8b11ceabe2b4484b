"""Contrasts that claims share: which comparisons are the same for every unit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.claims.contrasts import at_equal_loss, in_every_unit, most_varied
from coolbits.claims.evidence import Evidence

Pairs = list[tuple[int, str]]  # of each comparison its unit and cell


def _kept(pairs: Pairs, least: int = 1) -> Pairs:
    units, cells = [unit for unit, _ in pairs], pd.DataFrame({"budget": [cell for _, cell in pairs]})
    return [pair for pair, kept in zip(pairs, in_every_unit(units, cells, least), strict=True) if kept]


def _all(units: str, cells: str) -> Pairs:
    return [(int(unit), cell) for unit in units for cell in cells]


@pytest.mark.parametrize(
    ("pairs", "least", "kept"),
    [
        (_all("012", "ab"), 1, _all("012", "ab")),
        (_all("012", "ab") + _all("01", "c"), 1, _all("012", "ab")),
        (_all("012", "a") + _all("01", "bc"), 2, _all("01", "abc")),
        (_all("01", "a") + _all("12", "b"), 2, _all("1", "ab")),
        (_all("0", "ab") + _all("1", "c"), 1, _all("0", "ab")),
        (_all("00", "a") + _all("1", "a"), 1, _all("00", "a") + _all("1", "a")),
        (_all("012", "a"), 2, []),
        ([], 1, []),
    ],
    ids=["all", "one budget", "two at least", "one has both", "nothing in common", "repeats", "too few", "nothing"],
)
def test_most_units_then_most_cells(pairs: Pairs, least: int, kept: Pairs) -> None:
    assert sorted(_kept(pairs, least)) == sorted(kept)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcd"))), st.integers(1, 3))
def test_what_is_kept_is_a_full_table_and_no_cell_is_missing(pairs: Pairs, least: int) -> None:
    kept = _kept(pairs, least)
    units, cells = {unit for unit, _ in kept}, {cell for _, cell in kept}
    assert set(kept) == {(unit, cell) for unit in units for cell in cells}
    assert not kept or len(cells) >= least
    assert all(not units <= {one for one, other in pairs if other == cell} for cell in set("abcd") - cells if units)


def test_a_null_is_a_cell_like_any_other() -> None:
    cells = pd.DataFrame({"decay": [None, "linear", None], "budget": [1, 1, 1]})
    assert np.array_equal(in_every_unit([0, 0, 1], cells), [True, False, True])


def test_at_equal_loss_is_over_the_losses_that_both_passed() -> None:
    """From 3 to 4 nats the second run is one point above the first; beyond there is nothing to hold it against."""
    losses = np.array([5.0, 3.0, 4.0, 4.0, 2.0, 3.0])
    errors = 2 * losses + [0, 0, 0, 1, 1, 1]
    rows = pd.DataFrame({"evidence": np.arange(6)})
    evidence = Evidence(rows, {"full": losses[:, None], "error": errors[:, None]}, rows.iloc[:0])
    assert at_equal_loss(evidence, rows[:3], rows[3:]) == pytest.approx([1.0])
    assert at_equal_loss(evidence, rows[:1], rows[3:]) is None


def test_most_values_come_before_most_runs() -> None:
    rows = pd.DataFrame({"model": [*"aaabbbbbb"], "peak_lr": [1, 2, 3, 1, 2, 1, 2, 1, 2], "outcome": "complete"})
    assert set(most_varied(rows, ["model"], "peak_lr").model) == {"a"}
