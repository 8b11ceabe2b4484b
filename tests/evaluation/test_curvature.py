"""Gradients, Hessian products, trace and eigenvalues against the exact Hessian of a tiny model in float64."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from coolbits.data.shards import TokenStream
from coolbits.evaluation.curvature import lanczos, measure_curvature, standard_error, trace_probes
from coolbits.evaluation.objective import Objective, flat_weights, inner, norm, objective_of, rademacher
from coolbits.study.recipes.evaluation import Curvature

RECIPE = Curvature(
    windows=3, sequence_length=6, batch_size=2, probes=100, trace_tolerance=0, eigenvalues=5, tolerance=1e-8
)


def stream(tokens: int = 40, vocabulary: int = 12) -> TokenStream:
    generator = np.random.default_rng(0)
    return TokenStream((generator.integers(0, vocabulary, tokens).astype(np.uint16),), (0, tokens), vocabulary, 0)


def tiny(tied: bool = False) -> GPTNeoXForCausalLM:
    """A model of a few hundred weights, in float64, far from flat."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=12,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=6,
        max_position_embeddings=8,
        initializer_range=0.4,
        tie_word_embeddings=tied,
    )
    return GPTNeoXForCausalLM(config).double().eval()


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def objective(request) -> Objective:
    return objective_of(tiny(request.param), stream(), RECIPE)


@pytest.fixture(scope="module")
def exact(objective) -> torch.Tensor:
    """The Hessian, from a loss written down anew: torch.func on the mean over all windows at once."""
    tokens = torch.cat(objective.batches)
    names = list(objective.parameters)

    def loss(vector: torch.Tensor) -> torch.Tensor:
        pieces = vector.split([objective.parameters[name].numel() for name in names])
        own = {name: piece.view_as(objective.parameters[name]) for name, piece in zip(names, pieces, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            output = torch.func.functional_call(
                objective.model, own, kwargs={"input_ids": tokens[:, :-1], "use_cache": False}, tie_weights=True
            )
        return torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), tokens[:, 1:].flatten())

    return torch.autograd.functional.hessian(loss, objective.weights())


def test_weights_are_all_trainable_parameters_tied_ones_once(objective):
    model = objective.model
    tied = model.config.tie_word_embeddings
    head = 0 if tied else 12 * 4
    others = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name)
    assert len(objective.weights()) == others - head + 12 * 4 + head
    assert len(objective.weights()) == len(flat_weights(model))


def test_frozen_parameters_are_left_out():
    model = tiny()
    model.get_output_embeddings().weight.requires_grad_(False)
    assert len(flat_weights(tiny())) - len(flat_weights(model)) == 12 * 4


def test_the_loss_is_that_of_transformers(objective):
    windows = [window[None] for batch in objective.batches for window in batch]
    with torch.no_grad():
        expected = np.mean([objective.model(input_ids=window, labels=window).loss.item() for window in windows])
    assert objective.loss() == pytest.approx(expected, rel=1e-6)  # its own loss is of float32 logits


def test_the_gradient_is_the_slope_of_the_loss(objective):
    gradient, weights = objective.gradient(), objective.weights()
    direction = rademacher(weights, torch.Generator().manual_seed(3))
    losses = []
    for step in (1e-4, -1e-4):
        with objective.at(weights + step * direction):
            losses.append(objective.loss())
    assert float(gradient @ direction) == pytest.approx((losses[0] - losses[1]) / 2e-4, rel=1e-3)


@pytest.mark.parametrize("batch_size", [2, 8], ids=["two batches", "one batch, its graph kept"])
def test_products_are_those_of_the_exact_hessian(objective, exact, batch_size):
    own = objective_of(objective.model, stream(), RECIPE.model_copy(update={"batch_size": batch_size}))
    product = own.hessian()
    for seed in (0, 1):
        vector = torch.randn(len(exact), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        torch.testing.assert_close(product(vector), exact @ vector, rtol=1e-9, atol=1e-12)


def test_attention_is_differentiated_twice_in_other_models_too():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 12}
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, num_key_value_heads=1, **sizes)).double().eval()
    objective = objective_of(model, stream(), RECIPE)
    weights, product = objective.weights(), objective.hessian()
    direction = rademacher(weights, torch.Generator().manual_seed(3))
    image, gradients = product(direction), []
    for step in (1e-3, -1e-3):  # coarse: the norms of this model are float32 whatever the weights are
        with objective.at(weights + step * direction):
            gradients.append(objective.gradient())
    slope = (gradients[0] - gradients[1]) / 2e-3
    assert float((image - slope).norm()) < 0.01 * float(image.norm())


def test_a_block_elsewhere_leaves_no_trace(objective):
    before = objective.weights()
    with pytest.raises(ZeroDivisionError), objective.at(before + 1):
        assert not torch.equal(objective.weights(), before)
        raise ZeroDivisionError
    assert torch.equal(objective.weights(), before)


@pytest.fixture(scope="module")
def probes(objective) -> list[float]:
    return trace_probes(objective.hessian(), objective.weights(), RECIPE)


def test_the_trace_is_within_its_error_of_the_exact_one(probes, exact):
    assert len(probes) == 100
    assert abs(np.mean(probes) - float(exact.trace())) < 4 * standard_error(probes)


def test_the_error_is_that_of_independent_probes():
    """Hutchinson's variance for random signs is twice the sum of squares off the diagonal."""
    matrix = torch.eye(50) + 0.2
    probes = trace_probes(lambda vector: matrix @ vector, matrix[0], RECIPE.model_copy(update={"probes": 4000}))
    assert standard_error(probes) == pytest.approx(math.sqrt(2 * 50 * 49 * 0.2**2 / 4000), rel=0.1)


def test_probes_stop_when_the_error_is_small_enough():
    matrix = torch.eye(50) + 0.2
    recipe = RECIPE.model_copy(update={"trace_tolerance": 0.05})
    probes = trace_probes(lambda vector: matrix @ vector, matrix[0], recipe)
    assert 5 < len(probes) < 100
    assert standard_error(probes) <= 0.05 * np.mean(probes)
    assert standard_error(probes[:-1]) > 0.05 * np.mean(probes[:-1])


def test_a_diagonal_needs_one_probe():
    """Five, if it is not known to be one: of fewer the spread says too little to stop by."""
    diagonal = torch.arange(1.0, 6.0)
    unknown = RECIPE.model_copy(update={"trace_tolerance": 0.05})
    assert trace_probes(lambda vector: diagonal * vector, diagonal, unknown) == [15] * 5
    assert trace_probes(lambda vector: diagonal * vector, diagonal, RECIPE.model_copy(update={"probes": 1})) == [15]
    assert standard_error([15]) is None


def test_the_largest_eigenvalues_are_the_exact_ones(objective, exact):
    start = rademacher(objective.weights(), torch.Generator().manual_seed(0))
    found = lanczos(objective.hessian(), start, 5, 1e-8, 200)
    expected = torch.linalg.eigvalsh(exact).flip(0)
    np.testing.assert_allclose(found.values, expected[:5], rtol=1e-8)
    assert (found.residuals <= 1e-8 * float(expected.abs().max())).all()
    assert found.products < len(exact)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 30),
    count=st.integers(1, 40),
    iterations=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_every_value_lies_within_its_residual_of_an_eigenvalue(seed, size, count, iterations):
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix, start = square + square.T, torch.randn(size, generator=generator, dtype=torch.float64)
    found = lanczos(lambda vector: matrix @ vector, start, count, 1e-10, iterations)
    eigenvalues = torch.linalg.eigvalsh(matrix).numpy()
    assert found.products <= min(iterations, size)
    assert len(found.values) == min(count, found.products)
    assert (np.diff(found.values) <= 0).all()
    gaps = np.abs(found.values[:, None] - eigenvalues).min(1)
    assert (gaps <= found.residuals + 1e-9 * np.abs(eigenvalues).max()).all()
    if found.products == size:
        np.testing.assert_allclose(found.values, eigenvalues[::-1][:count], atol=1e-8)


def test_a_million_float32_weights_have_eigenvalues_to_seven_digits():
    """Summed by a BLAS in float32 the largest was 3.002, its residual 2e-5."""
    diagonal = 0.1 * torch.rand(1_000_000, generator=torch.Generator().manual_seed(0))
    diagonal[:3] = torch.tensor([3.0, 2.0, 1.0])
    start = rademacher(diagonal, torch.Generator().manual_seed(0))
    found = lanczos(lambda vector: diagonal * vector, start, 2, 1e-3, 100)
    np.testing.assert_allclose(found.values, [3, 2], rtol=1e-6)
    assert (found.residuals < 1e-3).all()


def test_inner_products_are_summed_in_float64():
    rows = torch.rand(3, 1_000_001, generator=torch.Generator().manual_seed(0))
    expected = [math.fsum((row.double() * rows[0].double()).tolist()) for row in rows]
    assert inner(rows, rows[0]).tolist() == pytest.approx(expected, rel=1e-13)
    assert norm(rows[0]) == pytest.approx(math.sqrt(expected[0]), rel=1e-13)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_matrix_of_low_rank_ends_the_search_early(scale):
    diagonal = scale * torch.tensor([5.0, 2.0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    found = lanczos(lambda vector: diagonal * vector, torch.ones(8, dtype=torch.float64), 6, 1e-10, 8)
    np.testing.assert_allclose(found.values / scale, [5, 2, 0], atol=1e-12)


def test_the_same_seed_gives_the_same_files(objective, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        measure_curvature(objective, RECIPE.model_copy(update={"probes": 3, "iterations": 6}), tmp_path / name)
    for file in ("eigenvalues.parquet", "trace.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_summary_says_what_the_files_hold(objective, exact, tmp_path):
    summary = measure_curvature(objective, RECIPE.model_copy(update={"probes": 3, "iterations": 6}), tmp_path)
    eigenvalues = pd.read_parquet(tmp_path / "eigenvalues.parquet")
    probes = pd.read_parquet(tmp_path / "trace.parquet")
    assert eigenvalues["rank"].tolist() == [1, 2, 3, 4, 5]
    assert summary["top_eigenvalue"] == eigenvalues.value[0]
    assert summary["largest_residual"] == eigenvalues.residual.max()
    assert summary["trace"] == pytest.approx(probes.value.mean())
    assert summary["probes"] == len(probes) == 3
    assert summary["products"] == 6
    assert summary["weights"] == len(exact)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


class Quadratic(torch.nn.Module):
    """Logits that are the weights themselves, whatever is asked: a softmax, whose Hessian is known by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64))

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, 4))


def test_a_softmax_has_the_hessian_of_the_textbook():
    model = Quadratic()
    objective = objective_of(model, stream(40, 4), RECIPE)
    chance = model.logits.detach().softmax(0)
    hessian = torch.diag(chance) - chance[:, None] * chance
    product = objective.hessian()
    torch.testing.assert_close(torch.stack([product(row) for row in torch.eye(4).double()]), hessian)
