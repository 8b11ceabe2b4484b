"""A quantized model beside the full-precision one: second-order prediction, and the plane through both."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coolbits.data.shards import TokenStream
from coolbits.evaluation.landscape import axis, measure_landscape
from coolbits.evaluation.objective import Objective, objective_of
from coolbits.evaluation.prediction import measure_prediction, random_costs
from coolbits.study.recipes.evaluation import Landscape, Prediction

PREDICTION = Prediction(windows=4, sequence_length=8, batch_size=3, probes=3)
LANDSCAPE = Landscape(windows=2, sequence_length=8, batch_size=2, points=5, margin=0.5)


@pytest.fixture
def objective(tiny_model) -> Objective:
    tokens = np.random.default_rng(0).integers(1, 300, 200).astype(np.uint16)
    return objective_of(tiny_model().double(), TokenStream((tokens,), (0, 200), 300, 0), PREDICTION)


def rounded(objective: Objective, share: float) -> torch.Tensor:
    """Return weights whose linear layers in blocks are off by `share` of their spread."""
    generator = torch.Generator().manual_seed(1)
    moved = {name: piece.clone() for name, piece in objective.split(objective.weights()).items()}
    for name, piece in moved.items():
        if "layers" in name and piece.ndim == 2:
            piece += share * piece.std() * torch.randn(piece.shape, generator=generator, dtype=piece.dtype)
    return torch.cat([piece.flatten() for piece in moved.values()])


def test_small_errors_cost_what_is_predicted(objective, tmp_path):
    missing = []
    for share in (2e-3, 1e-3):
        summary = measure_prediction(objective, rounded(objective, share), PREDICTION, tmp_path)
        missing.append(summary["increase"] - summary["predicted"])
        assert summary["quantized_loss"] - summary["loss"] == summary["increase"]
    assert abs(missing[1]) < 0.1 * abs(summary["quadratic"])
    assert missing[0] / missing[1] == pytest.approx(8, rel=0.3)  # what is missing is of third order


def test_terms_are_those_of_the_expansion(objective, tmp_path):
    quantized = rounded(objective, 0.01)
    change = quantized - objective.weights()
    summary = measure_prediction(objective, quantized, PREDICTION, tmp_path)
    assert summary["linear"] == pytest.approx(float(objective.gradient() @ change))
    bent = float(change @ objective.hessian()(change))
    assert summary["quadratic"] == pytest.approx(bent / 2)
    assert summary["curvature"] == pytest.approx(bent / float(change @ change))
    assert summary["predicted"] == summary["linear"] + summary["quadratic"]
    random = random_costs(objective, change, objective.hessian(), PREDICTION)
    assert summary["random"] == pytest.approx(np.mean(random))
    assert summary["random_error"] == pytest.approx(np.std(random, ddof=1) / 3**0.5)


def test_the_shares_of_the_modules_add_up(objective, tmp_path):
    summary = measure_prediction(objective, rounded(objective, 0.01), PREDICTION, tmp_path)
    modules = pd.read_parquet(tmp_path / "modules.parquet")
    assert len(modules) == 8 and modules.module.str.startswith("gpt_neox.layers.").all()
    for name in ("linear", "quadratic", "squared_norm", "weights"):
        assert modules[name].sum() == pytest.approx(summary[name])


def test_random_errors_have_the_size_of_the_real_ones_in_every_module(objective):
    change = rounded(objective, 0.01) - objective.weights()
    seen = []
    costs = random_costs(objective, change, lambda noise: seen.append(noise) or noise, PREDICTION)
    assert costs == pytest.approx([float(change @ change) / 2] * 3)
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1])
    for noise in seen:
        for name, piece in objective.split(noise).items():
            torch.testing.assert_close(piece.norm(), objective.split(change)[name].norm())


def test_measuring_leaves_the_weights_as_they_were(objective, tmp_path):
    before = objective.weights()
    measure_prediction(objective, rounded(objective, 0.1), PREDICTION, tmp_path)
    measure_landscape(objective, before + 0.01, rounded(objective, 0.1), LANDSCAPE, tmp_path)
    assert torch.equal(objective.weights(), before)


def test_a_broken_quantized_model_is_recorded_not_raised(objective, tmp_path):
    quantized = rounded(objective, 0.1)
    quantized[objective.weights() != quantized] *= 1e100
    for summary in (
        measure_prediction(objective, quantized, PREDICTION, tmp_path),
        measure_landscape(objective, objective.weights() + 0.1, quantized, LANDSCAPE, tmp_path),
    ):
        assert summary["quantized_loss"] is None
        json.dumps(summary, allow_nan=False)


def test_the_three_models_are_on_the_plane(objective, tmp_path):
    previous, quantized = objective.weights() + 0.01, rounded(objective, 0.1)
    summary = measure_landscape(objective, previous, quantized, LANDSCAPE, tmp_path)
    grid = pd.read_parquet(tmp_path / "grid.parquet")
    assert len(grid) == 25
    places = {
        "loss": (0, 0),
        "previous_loss": (summary["previous_distance"], 0),
        "quantized_loss": (0, summary["quantized_distance"]),
    }
    for name, (x, y) in places.items():  # with a margin of a half, five points fall on both ends
        at = grid[np.isclose(grid.x, x) & np.isclose(grid.y, y)]
        assert at.loss.item() == pytest.approx(summary[name])
    with objective.at(previous):
        assert objective.loss() == pytest.approx(summary["previous_loss"])
    assert summary["previous_distance"] == pytest.approx(float((previous - objective.weights()).norm()))


def test_a_quantizer_that_changes_nothing_lies_at_the_origin(objective, tmp_path):
    weights = objective.weights()
    summary = measure_landscape(objective, weights + 0.01, weights, LANDSCAPE, tmp_path)
    assert (summary["quantized_distance"], summary["cosine"]) == (0, 0)
    assert summary["quantized_loss"] == summary["loss"]
    grid = pd.read_parquet(tmp_path / "grid.parquet")
    assert (grid.y == 0).all() and np.isfinite(grid.loss).all()


def test_the_cosine_is_that_of_the_two_directions(objective, tmp_path):
    step = rounded(objective, 0.1) - objective.weights()
    other = torch.zeros_like(step)
    other[step == 0] = 1
    for previous, cosine in ((2 * step, 1), (other, 0), (step / step.norm() + other / other.norm(), 0.5**0.5)):
        summary = measure_landscape(
            objective, objective.weights() + previous, objective.weights() + step, LANDSCAPE, tmp_path
        )
        assert summary["cosine"] == pytest.approx(cosine, abs=1e-9)


def test_an_extent_makes_the_grids_of_all_models_alike(objective, tmp_path):
    recipe = LANDSCAPE.model_copy(update={"extent": (2.0, 3.0)})
    measure_landscape(objective, objective.weights() + 0.01, rounded(objective, 0.1), recipe, tmp_path)
    grid = pd.read_parquet(tmp_path / "grid.parquet")
    assert (grid.x.min(), grid.x.max(), grid.y.min(), grid.y.max()) == (-1, 3, -1.5, 4.5)


@given(reach=st.floats(1e-3, 1e3), points=st.integers(2, 50), margin=st.floats(0, 5))
@settings(max_examples=50)
def test_places_are_even_and_reach_beyond_both_ends(reach, points, margin):
    places = axis(reach, LANDSCAPE.model_copy(update={"points": points, "margin": margin}))
    assert len(places) == points
    assert places[0] == pytest.approx(-margin * reach) and places[-1] == pytest.approx((1 + margin) * reach)
    np.testing.assert_allclose(np.diff(places), (1 + 2 * margin) * reach / (points - 1))
