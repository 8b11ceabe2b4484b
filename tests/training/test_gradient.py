"""The gradient of a batch against the whole batch at once, a closed form, and plain formulas in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from coolbits.models.build import build_model
from coolbits.models.shapes import GPT2_NAMES
from coolbits.study.recipes.training import Model, Trajectory
from coolbits.training.gradient import accumulate_gradient, summed_loss


class SquaredError:
    """A linear toy in float64: the sum over tokens of (w * input - label)² / 2."""

    def __init__(self) -> None:
        self.w = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return ((self.w * inputs - labels) ** 2).sum() / 2


@pytest.mark.parametrize("micro", [None, 1, 3, 5, 7, 100])
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(micro: int | None) -> None:
    batch = torch.randint(0, 50, (7, 12), generator=torch.Generator().manual_seed(0))
    inputs, labels = batch[:, :-1].double(), batch[:, 1:].double()
    toy = SquaredError()
    loss = accumulate_gradient(toy, batch, micro)
    torch.testing.assert_close(loss, ((0.3 * inputs - labels) ** 2).mean() / 2, rtol=1e-14, atol=0)
    torch.testing.assert_close(toy.w.grad, ((0.3 * inputs - labels) * inputs).mean(), rtol=1e-14, atol=0)


def test_the_loss_is_the_cross_entropy_of_the_next_token(recipe: Callable[..., Trajectory]) -> None:
    model = build_model(recipe().model, seed=0)
    batch = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(0))
    inputs, labels = batch[:, :-1], batch[:, 1:]
    loss = summed_loss(model, "float32")(inputs, labels)
    chances = torch.softmax(model(input_ids=inputs).logits.double(), -1)
    expected = -chances.gather(-1, labels[..., None]).log().sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_bfloat16_leaves_weights_gradients_and_loss_in_float32(recipe: Callable[..., Trajectory]) -> None:
    batch = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(0))
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = build_model(recipe().model, seed=0)
        losses[precision] = accumulate_gradient(summed_loss(model, precision), batch, None)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert {parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None} == {
            torch.float32
        }
    assert losses["bfloat16"].dtype == torch.float32
    assert losses["bfloat16"].item() == pytest.approx(losses["float32"].item(), rel=1e-2)
    assert losses["bfloat16"] != losses["float32"]


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "olmo2", "qwen3", "gpt2"])
def test_plain_attention_with_a_ready_mask_is_the_library_s_causal_attention(
    architecture: str, recipe: Callable[..., Trajectory]
) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16}
    config = {
        "gpt2": {GPT2_NAMES.get(key, key): size for key, size in sizes.items()},
        "qwen3": sizes | {"num_key_value_heads": 1},
    }.get(architecture, sizes)
    model = build_model(Model(architecture=architecture, config=config), seed=0)
    batch = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(0))
    inputs, labels = batch[:, :-1], batch[:, 1:]
    expected = torch.nn.functional.cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), labels.flatten())
    loss = summed_loss(model, "float32")(inputs, labels) / labels.numel()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_sliding_window_is_the_same_in_training_as_in_scoring() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16, "num_key_value_heads": 1}
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    batch = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(0))
    inputs, labels = batch[:, :-1], batch[:, 1:]
    losses = []
    for config in (sizes, sizes | window):
        model = build_model(Model(architecture="qwen3", config=config), seed=0)
        expected = torch.nn.functional.cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), labels.flatten())
        losses.append(summed_loss(model, "float32")(inputs, labels).item() / labels.numel())
        assert losses[-1] == pytest.approx(expected.item(), rel=1e-6)
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_a_process_compiles_models_of_many_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default PyTorch stops at eight, and runs what comes after uncompiled: slower, and not to the same bits."""
    torch._dynamo.reset()
    captured = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=captured))
    batch = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    for number in range(10):
        sizes = {"vocab_size": 64, "hidden_size": 8 + 8 * number, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}
        model = build_model(Model(architecture="gpt_neox", config=sizes), seed=0)
        summed_loss(model, "float32", compiled=True)(batch[:, :-1], batch[:, 1:])
        # One program for the blocks of each model, and one for all losses, whose shapes are the same here.
        assert captured.frame_count == number + 2


def test_a_compiled_loss_is_captured_whole_and_has_the_same_value_and_gradient(
    recipe: Callable[..., Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is captured is run by PyTorch itself here: compiling it takes minutes where there is no cache.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    batch = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(0))
    plain, compiled = (build_model(recipe().model, seed=0) for _ in range(2))
    expected = accumulate_gradient(summed_loss(plain, "float32"), batch, None)
    loss = accumulate_gradient(summed_loss(compiled, "float32", compiled=True), batch, None)
    torch.testing.assert_close(loss, expected)
    for own, given in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, given.grad, rtol=1e-4, atol=1e-6)
