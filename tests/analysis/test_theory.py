"""Paper B's theorems in numbers: what is known of them comes out again, and every bound holds."""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from coolbits.analysis.rows import table
from coolbits.analysis.theory import build_theory, random_rows
from coolbits.study.recipes.analysis import Source, Theory

SMALL = Theory(rows=32, columns=64, seeds=2, block_size=256, adam_block_sizes=(64, 256), tensors=3)

# From an independent computation: 512 x 1024, blocks of 2,048, in percent. None: not known.
KNOWN = {
    ("gaussian", "linear"): (0.83, 0.97, 1.0, 2.8),
    ("gaussian", "dynamic"): (1.25, 1.46, 1.5, 4.3),
    ("heavy-tailed", "linear"): (3.6, 3.9, 4.1, None),
    ("heavy-tailed", "dynamic"): (1.9, 2.2, 2.3, None),
    ("ill-conditioned", "linear"): (0.88, 38, 33, None),
    ("ill-conditioned", "dynamic"): (1.3, 52, 49, None),
}


@pytest.fixture(scope="module")
def large() -> pd.DataFrame:
    recipe = Theory(rows=512, columns=1024, seeds=1, adam_block_sizes=(2048,), newton_schulz_steps=(5,))
    return table(random_rows(recipe))


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    return table(random_rows(SMALL))


def one(rows: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        rows = rows[rows[column] == value]
    (row,) = rows.itertuples()
    return row


@pytest.mark.parametrize(("source", "codec"), KNOWN, ids=" ".join)
def test_muons_change_is_the_one_that_is_known(large: pd.DataFrame, source: str, codec: str) -> None:
    rows = large[(large.source == source) & (large.codec == codec) & (large.step == 1)]
    error, polar, iterated, bound = KNOWN[source, codec]
    tolerance = 0.12 if source == "heavy-tailed" else 0.06
    assert 100 * one(rows, quantity="relative_error").value == pytest.approx(error, rel=tolerance)
    assert 100 * one(rows, quantity="polar_change").value == pytest.approx(polar, rel=tolerance)
    assert 100 * one(rows, quantity="ns5_change").value == pytest.approx(iterated, rel=tolerance)
    if bound is not None:
        assert 100 * one(rows, quantity="polar_change").bound == pytest.approx(bound, rel=tolerance)


def test_the_condition_of_the_ill_conditioned_momentum_is_known(large: pd.DataFrame) -> None:
    assert one(large, source="ill-conditioned", quantity="condition").value == pytest.approx(871, rel=0.1)


@pytest.mark.parametrize(("codec", "zeros", "squared"), [("linear", 0.179, 3e13), ("dynamic-unsigned", 0.0011, 8e6)])
def test_adamws_zeros_and_error_are_the_known_ones(
    large: pd.DataFrame, codec: str, zeros: float, squared: float
) -> None:
    rows = large[(large.check == "adam") & (large.source == "gaussian") & (large.codec == codec) & (large.step == 1)]
    assert one(rows, quantity="zeros").value == pytest.approx(zeros, rel=0.1)
    assert one(rows, quantity="mean_squared_change").value == pytest.approx(squared, rel=0.15)


def test_zeros_are_those_of_the_normal_distribution(large: pd.DataFrame) -> None:
    """A second moment is lost where the gradient is below 1/sqrt(254) of its block's largest, 3.6 on average."""
    rows = large[(large.check == "adam") & (large.source == "gaussian") & (large.codec == "linear")]
    largest = 0.001 * sum(1 - math.erf(0.001 * place / 2**0.5) ** 2048 for place in range(8000))
    assert one(rows, quantity="zeros").value == pytest.approx(math.erf(largest / 254**0.5 / 2**0.5), rel=0.03)


def test_every_bound_holds(large: pd.DataFrame, small: pd.DataFrame) -> None:
    for rows in (large, small):
        bounded = rows[rows.bound.notna()]
        assert bounded.holds.all() and set(bounded.check) == {"rounding", "sgd", "muon"}
        assert rows[rows.bound.isna()].holds.isna().all()


def test_linear_codes_break_adamws_next_update_and_nobody_elses(small: pd.DataFrame) -> None:
    rows = small[(small.step == 2) & (small.source == "gaussian") & (small.quantity == "relative_change")]
    change = rows.groupby(["check", rows.codec.str.removesuffix("-unsigned")]).value.mean()
    assert change["adam", "linear"] > 10 * change["adam", "dynamic"]
    assert max(change["sgd", "linear"], change["muon", "linear"]) < 0.02


def test_smaller_blocks_lose_fewer_second_moments(small: pd.DataFrame) -> None:
    rows = small[(small.quantity == "zeros") & (small.source == "heavy-tailed") & (small.codec == "linear-unsigned")]
    assert rows.groupby("block").value.mean().is_monotonic_increasing


def sources(*names: str) -> tuple[Source, ...]:
    return tuple(Source(role=name, run="muon", trajectory=f"t-{name}", optimizer=name) for name in names)


def test_checkpoints_lend_the_states_that_they_have(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    names = ("Muon-32", "AdamW-32", "SGDM-32")
    recipe = SMALL.model_copy(update={"sources": sources(*names)})
    summary = build_theory(recipe, {name: checkpoint(name) for name in names}, tmp_path)
    found = pd.read_parquet(tmp_path / "table.parquet")
    lent = found[found.trajectory.notna()]
    checks = lent.groupby("optimizer").check.unique().map(set).to_dict()
    assert checks == {
        "Muon-32": {"muon", "rounding", "adam"},
        "AdamW-32": {"adam", "rounding"},
        "SGDM-32": {"rounding", "sgd"},
    }
    assert set(lent.step) == {3} and set(lent.seed) == {5}
    muon = lent[(lent.optimizer == "Muon-32") & (lent.quantity == "sigma_min")]
    assert len(muon) == 3 and not muon.tensor.str.contains("embed").any()
    assert summary == {"bounds": found.bound.notna().sum(), "held": found.bound.notna().sum(), "diverged": []}


def test_a_state_stored_in_8_bits_shows_its_spectrum_and_is_not_rounded_again(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe = SMALL.model_copy(update={"sources": sources("Muon-8L", "AdamW-8D")})
    build_theory(recipe, {name: checkpoint(name) for name in ("Muon-8L", "AdamW-8D")}, tmp_path)
    found = pd.read_parquet(tmp_path / "table.parquet")
    lent = found[found.trajectory.notna()]
    momenta = lent[(lent.optimizer == "Muon-8L") & lent.tensor.str.contains("layers")]
    assert set(momenta.check) == {"muon"} and momenta.codec.isna().all()
    tables = lent[(lent.optimizer == "Muon-8L") & lent.tensor.str.contains("embed")]
    assert set(tables.check) == {"adam", "rounding"}  # their moments are float32
    assert lent[lent.optimizer == "AdamW-8D"].empty


def test_a_diverged_run_has_no_states_and_is_named(lost_checkpoint: Path, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"seeds": 1, "sources": sources("AdamW-8L")})
    summary = build_theory(recipe, {"AdamW-8L": lost_checkpoint}, tmp_path)
    assert summary["diverged"] == ["t-AdamW-8L"]
    assert pd.read_parquet(tmp_path / "table.parquet").trajectory.isna().all()


def test_equal_recipes_give_equal_bytes(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"seeds": 1, "sources": sources("Muon-32")})
    directory, files = checkpoint("Muon-32"), []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        build_theory(recipe, {"Muon-32": directory}, tmp_path / run)
        files.append((tmp_path / run / "table.parquet").read_bytes())
    assert files[0] == files[1]
