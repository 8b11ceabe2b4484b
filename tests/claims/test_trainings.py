"""Claims about image classifiers and fine-tunings: what margins, seeds, settings and divergence make of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coolbits.claims.registry import REGISTRY
from coolbits.claims.trainings import Trainings, of_answers, of_images
from coolbits.claims.verdict import CONTRADICTED, SUPPORTED, UNDECIDED, Effect, Judgement, judge

Make = Callable[..., pd.DataFrame]
PARITY = {
    "vision-sgdm-8l-trains-as-well": ("sgd", "8L"),
    "vision-sgdm-8d-trains-as-well": ("sgd", "8D"),
    "vision-adamw-8d-trains-as-well": ("adamw", "8D"),
    "vision-adamw-8d-min0-trains-as-well": ("adamw", "8D-min0"),
    "finetuning-muon-8l-trains-as-well": ("muon", "8L"),
    "finetuning-muon-8d-trains-as-well": ("muon", "8D"),
    "finetuning-adamw-8d-trains-as-well": ("adamw", "8D"),
}
UNSTABLE = {
    "vision-adamw-8l-unstable": ("adamw", "8L"),
    "vision-adamw-8l-min0-unstable": ("adamw", "8L-min0"),
    "finetuning-adamw-8l-unstable": ("adamw", "8L"),
}
ALL = PARITY | UNSTABLE
GOOD_RATE, BAD_RATE = 1e-2, 1e-1


@pytest.fixture
def table_of(classifiers: Make, finetunings: Make) -> Make:
    """Return a function (claim, how much worse its 8-bit variant is, seeds, spread) -> table of the claim."""

    def make(name: str, worse: float, seeds: int = 3, spread: float = 0.1) -> pd.DataFrame:
        kind, states = ALL[name]
        make_table = classifiers if name.startswith("vision") else finetunings
        return make_table({(kind, "32"): 0.0, (kind, states): worse}, seeds, spread)

    return make


def _evidence(name: str, table: pd.DataFrame) -> Trainings:
    return of_images(table) if name.startswith("vision") else of_answers(table)


def _effect(name: str, table: pd.DataFrame) -> Effect | None:
    return REGISTRY[name].measure(_evidence(name, table))


def _judged(name: str, table: pd.DataFrame) -> Judgement:
    effect = _effect(name, table)
    assert effect is not None, f"{name} found no rows"
    return judge(effect, REGISTRY[name].form, 0.95)


def _diverged(table: pd.DataFrame, lost: Any) -> pd.DataFrame:
    """Make the trainings of the rows `lost` diverge before their end."""
    table = table[~(lost & (table.step == 20))].copy()
    rows = lost.loc[table.index]
    table.loc[rows, "outcome"] = "diverged"
    table.loc[rows, "diverged_step"] = 15
    return table


def _low_bit(table: pd.DataFrame) -> pd.Series:
    return table.states != "32"


@pytest.mark.parametrize("name", PARITY)
def test_parity_holds_within_the_margin_only(name: str, table_of: Make) -> None:
    """One point of accuracy, or one percent of the loss."""
    for worse, verdict in ((0.6, SUPPORTED), (-0.6, SUPPORTED), (1.0, UNDECIDED), (1.4, CONTRADICTED)):
        assert _judged(name, table_of(name, worse)).verdict == verdict
    assert _judged(name, table_of(name, 0.6, spread=0.4)).verdict == UNDECIDED
    assert _judged(name, table_of(name, 0.6)).effect == pytest.approx(0.6)


@pytest.mark.parametrize("name", UNSTABLE)
def test_unstable_is_what_ends_far_behind(name: str, table_of: Make) -> None:
    """Five points of accuracy, or five percent of the loss."""
    for worse, verdict in ((5.6, SUPPORTED), (5.0, UNDECIDED), (4.0, CONTRADICTED)):
        assert _judged(name, table_of(name, worse)).verdict == verdict


@pytest.mark.parametrize("name", ALL)
def test_the_interval_is_students(name: str, table_of: Make) -> None:
    """Three seeds at worse - spread, worse, worse + spread: half its width is 4.303 spread / sqrt(3)."""
    judgement = _judged(name, table_of(name, 2.0, spread=0.2))
    assert (judgement.low, judgement.high) == pytest.approx((2 - 0.4969, 2 + 0.4969), abs=1e-4)
    assert judgement.resampled == "nothing"


@pytest.mark.parametrize("name", ALL)
def test_one_seed_and_seeds_that_agree_decide_nothing(name: str, table_of: Make) -> None:
    for table in (table_of(name, 0.0, seeds=1), table_of(name, 9.0, seeds=1), table_of(name, 9.0, spread=0.0)):
        judgement = _judged(name, table)
        assert (judgement.verdict, judgement.low, judgement.high) == (UNDECIDED, None, None)
        assert judgement.effect == pytest.approx(0.0) or judgement.effect == pytest.approx(9.0)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_what_always_diverges_is_decided_by_any_number_of_seeds(name: str, seeds: int, table_of: Make) -> None:
    table = table_of(name, 0.0, seeds)
    lost = _diverged(table, _low_bit(table))
    effect = _effect(name, lost)
    on_trial = 2 * seeds  # both rates: a variant that always diverged has no best one
    assert effect is not None and (effect.n, effect.diverged, effect.runs) == (0, on_trial, on_trial)
    assert _judged(name, lost).effect is None
    assert _judged(name, lost).verdict == (SUPPORTED if name in UNSTABLE else CONTRADICTED)


@pytest.mark.parametrize("name", ALL)
def test_one_seed_that_diverged_speaks_against_both(name: str, table_of: Make) -> None:
    table = table_of(name, 0.0)
    lost = _diverged(table, _low_bit(table) & (table.seed == 1))
    assert _judged(name, lost).verdict == (UNDECIDED if name in UNSTABLE else CONTRADICTED)


@pytest.mark.parametrize("name", ALL)
def test_the_32_bit_form_is_no_evidence_where_it_diverged_too(name: str, table_of: Make) -> None:
    table = table_of(name, 0.6)
    hot = _diverged(table, table.peak_lr == BAD_RATE)
    assert _judged(name, hot).verdict == (CONTRADICTED if name in UNSTABLE else SUPPORTED)
    assert _effect(name, _diverged(table, table.peak_lr > 0)) is None


@pytest.mark.parametrize("name", ALL)
def test_each_variant_is_judged_at_the_best_rate_of_its_own(name: str, table_of: Make) -> None:
    table = table_of(name, 2.0)
    swapped = table.peak_lr.map({GOOD_RATE: BAD_RATE, BAD_RATE: GOOD_RATE})
    apart = table.assign(peak_lr=table.peak_lr.mask(_low_bit(table), swapped))
    assert _judged(name, apart).effect == pytest.approx(2.0)


@pytest.mark.parametrize("name", ALL)
def test_entries_of_the_study_are_not_mixed(name: str, table_of: Make) -> None:
    table = table_of(name, 2.0)
    assert _effect(name, table.assign(run=table.run.mask(_low_bit(table), "other"))) is None
    assert _effect(name, table[~_low_bit(table)]) is None
    other = table_of(name, 4.0).assign(run="other", trajectory="other-" + table.trajectory)
    assert _judged(name, pd.concat([table, other], ignore_index=True)).effect == pytest.approx(3.0)


@pytest.mark.parametrize("name", ALL)
def test_seeds_of_another_entry_are_units_too(name: str, table_of: Make) -> None:
    """Such as an entry that repeats another's best rates with more seeds."""
    table = table_of(name, 2.0)
    more = table[table.seed > 0].assign(run="more", seed=table.seed + 5, trajectory="more-" + table.trajectory)
    if "start" in more:
        more["start"] = "more-" + more.start
    effect = _effect(name, pd.concat([table, more], ignore_index=True))
    assert effect is not None and (len(effect.units), effect.uneven) == (5, 0)


@pytest.mark.parametrize("name", ALL)
def test_a_32_bit_form_that_two_entries_share_is_the_peer_in_both(name: str, table_of: Make) -> None:
    table = table_of(name, 2.0)
    twin = table[~_low_bit(table)].assign(run="other")
    for rows in ([twin, table], [table, twin]):
        assert _judged(name, pd.concat(rows, ignore_index=True)).effect == pytest.approx(2.0)


@pytest.mark.parametrize("name", ALL)
def test_a_pair_that_two_entries_share_counts_once(name: str, table_of: Make) -> None:
    table = table_of(name, 2.0)
    other = table_of(name, 4.0).assign(run="other", trajectory="other-" + table.trajectory)
    shared = table.assign(run="again")
    effect = _effect(name, pd.concat([table, shared, other], ignore_index=True))
    assert effect is not None and (effect.n, effect.runs) == (6, 12 if name in UNSTABLE else 6)
    assert judge(effect, "equivalence", 0.95).effect == pytest.approx(3.0)
    lost = [_diverged(rows, (rows.seed == 1) | _low_bit(rows) & (rows.seed == 2)) for rows in (table, shared, other)]
    alone, several = (_effect(name, pd.concat(rows, ignore_index=True)) for rows in (lost[::2], lost))
    assert alone is not None and several is not None
    counts = [(effect.n, effect.diverged, effect.runs, effect.lost_peers) for effect in (alone, several)]
    assert counts[0] == counts[1] and counts[0][3] == 2


@pytest.mark.parametrize("name", ALL)
def test_points_of_a_grid_that_no_column_tells_are_paired_in_order(name: str, table_of: Make) -> None:
    """Say, two augmentations, or two sets of conversations: trainings that differ in the name alone."""
    table, second = table_of(name, 2.0), table_of(name, 4.0)
    second = second.assign(trajectory="b-" + second.trajectory)
    for column in ("accuracy", "loss"):
        if column in second:
            second[column] = second[column] * 0.9
    effect = _effect(name, pd.concat([table, second], ignore_index=True))
    assert effect is not None and effect.n == 6
    share = 0.9 if name.startswith("vision") else 1.0
    expected = (2.0 + 4.0 * share) / 2
    assert judge(effect, "equivalence", 0.95).effect == pytest.approx(expected)


def test_a_model_whose_start_had_diverged_is_on_no_trial(finetunings: Make) -> None:
    table = finetunings({("muon", "32"): 0.0, ("muon", "8L"): 0.5})
    never = table[table.seed == 1].drop_duplicates("trajectory")
    never = never.assign(loss=np.nan, last=False, step=4, outcome="diverged", diverged_step=4)
    kept = pd.concat([table[table.seed != 1], never], ignore_index=True)
    effect = _effect("finetuning-muon-8l-trains-as-well", kept)
    assert effect is not None and (effect.n, effect.runs, effect.diverged) == (2, 2, 0)


def test_orders_of_the_conversations_are_repeats_within_a_start(finetunings: Make) -> None:
    """Twelve pairs, of which the orders say nothing of other starts: each lies where its start has it."""
    table = finetunings({("muon", "32"): 0.0, ("muon", "8L"): 0.5})
    orders = [table.assign(data_seed=order, trajectory=f"{order}-" + table.trajectory) for order in range(4)]
    several = pd.concat(orders, ignore_index=True)
    effect = _effect("finetuning-muon-8l-trains-as-well", several)
    assert effect is not None and (effect.n, len(effect.units), effect.caveat) == (12, 3, "")
    alone = _judged("finetuning-muon-8l-trains-as-well", table)
    judgement = _judged("finetuning-muon-8l-trains-as-well", several)
    assert (judgement.low, judgement.high) == pytest.approx((alone.low, alone.high))


@pytest.mark.parametrize("columns", [("start", "seed"), ("start",)], ids=["a run's", "the hub's"])
def test_of_one_start_the_orders_are_units_and_the_page_says_so(columns: tuple[str, ...], finetunings: Make) -> None:
    """Of a model of the hub the column `seed` has that of the order."""
    table = finetunings({("muon", "32"): 0.0, ("muon", "8L"): 0.5})
    one = table.assign(data_seed=table.seed, **{name: table[name].iloc[0] for name in columns})
    effect = _effect("finetuning-muon-8l-trains-as-well", one)
    assert effect is not None and set(effect.units) == {"0", "1", "2"}
    assert "units are orders of the conversations" in effect.caveat


def test_starts_of_one_seed_are_one_unit(finetunings: Make) -> None:
    """Say, of two budgets, which share a trunk."""
    table = finetunings({("muon", "32"): 0.0, ("muon", "8L"): 0.5})
    longer = table.assign(start="long-" + table.start, trajectory="long-" + table.trajectory)
    effect = _effect("finetuning-muon-8l-trains-as-well", pd.concat([table, longer], ignore_index=True))
    assert effect is not None and (effect.n, len(effect.units)) == (6, 3)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *(
            ("vision-sgdm-8l-trains-as-well", name)
            for name in ("images", "model", "schedule", "epochs", "batch_images")
        ),
        *(("finetuning-muon-8l-trains-as-well", name) for name in ("model", "tokens", "schedule")),
    ],
)
def test_trainings_that_a_column_tells_apart_are_not_paired(name: str, column: str, table_of: Make) -> None:
    """The 32-bit form was trained at the second point of a grid alone, which is the first point that it has."""
    first, second = table_of(name, 4.0), table_of(name, 2.0)
    another = "another-" + second[column] if isinstance(second[column].iloc[0], str) else 2 * second[column]
    second = second.assign(**{column: another}, trajectory="second-" + second.trajectory)
    table = pd.concat([first[_low_bit(first)], second], ignore_index=True)
    effect = _effect(name, table)
    assert effect is not None and (effect.n, effect.runs) == (3, 3)
    assert _judged(name, table).effect == pytest.approx(2.0)


@pytest.mark.parametrize("name", ALL)
def test_the_last_score_counts_wherever_it_stands_in_the_table(name: str, table_of: Make) -> None:
    assert _judged(name, table_of(name, 2.0).iloc[::-1]).effect == pytest.approx(2.0)


def test_fine_tunings_are_paired_that_share_the_order_of_the_conversations(finetunings: Make) -> None:
    """Of the orders that each form read, of which neither is the first in both, one is the same."""
    table = finetunings({("muon", "32"): 0.0, ("muon", "8L"): 0.5})
    orders = [
        rows.assign(data_seed=order, trajectory=f"{order}-" + rows.trajectory, loss=rows.loss * (1 + 0.1 * order))
        for low, of_form in ((True, (1, 2)), (False, (2, 3)))
        for rows in [table[_low_bit(table) == low]]
        for order in of_form
    ]
    effect = _effect("finetuning-muon-8l-trains-as-well", pd.concat(orders, ignore_index=True))
    assert effect is not None and (effect.n, len(effect.units)) == (3, 3)
    assert judge(effect, "equivalence", 0.95).effect == pytest.approx(0.5)


def test_of_one_start_in_one_order_there_is_nothing_to_say(finetunings: Make) -> None:
    """There is one unit, and no interval whose meaning a reader could mistake."""
    effect = _effect("finetuning-muon-8l-trains-as-well", finetunings({("muon", "32"): 0.0, ("muon", "8L"): 0.5}, 1))
    assert effect is not None and (len(effect.units), effect.caveat) == (1, "")
