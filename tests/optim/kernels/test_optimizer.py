"""Whole optimizer steps made by the kernels, wired up as on a GPU: against PyTorch's steps and float64 arithmetic."""

import copy
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from transformers import PreTrainedModel

pytest.importorskip("triton")

from coolbits.models.build import build_model
from coolbits.models.presets import preset
from coolbits.optim import build, kernels, reference
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise
from coolbits.optim.kernels import product, steps
from coolbits.optim.muon import Muon, update_scale
from coolbits.optim.newton_schulz import COEFFICIENTS, orthogonalize
from coolbits.optim.optimizer import Group, Optimizer
from coolbits.optim.sgd import SGD
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes import training as recipes

EVERY_NAME = pytest.mark.parametrize(
    "name", ["AdamW-8L", "AdamW-8D", "AdamW-8D-b256", "SGDM-8L", "SGDM-8D", "Muon-8L", "Muon-8D", "Muon-8L+AdamW-8D"]
)
LR, STEPS = 1e-2, 2  # the second goes on from states that are not zero

States = dict[str, Tensor]
Build = Callable[..., Optimizer]


def model_of(layers: int, device: torch.device) -> PreTrainedModel:
    return build_model(preset("micro-neox", 96, 32, num_hidden_layers=layers), seed=0).to(device)


def give_gradients(model: PreTrainedModel, step: int) -> None:
    """Random gradients of many magnitudes."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        sizes = 10 ** (-3 * torch.rand(parameter.shape, generator=generator))
        parameter.grad = (torch.randn(parameter.shape, generator=generator) * sizes).to(parameter.device)


@pytest.fixture
def built_with(monkeypatch: pytest.MonkeyPatch) -> Build:
    """A model's optimizer by its name, whose 8-bit states are updated by the given functions whatever the device."""

    def make(
        steps: ModuleType, name: str, model: PreTrainedModel, precision: recipes.Precision = "float32"
    ) -> Optimizer:
        monkeypatch.setattr(build, "choose_steps", lambda device, compile_cpu: steps)
        recipe: recipes.Optimizer = TypeAdapter(recipes.Optimizer).validate_python(optimizer_preset(name))
        return build.build_optimizer(model, recipe, LR, precision)

    return make


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts launches by the kernel's name; nothing is computed."""
    counts: Counter[str] = Counter()

    class Counted:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            counts[self.name] += 1
            return lambda *arguments, **options: None

    for module, name in ((steps, "adam_kernel"), (steps, "momentum_kernel"), (product, "_gram_kernel")):
        monkeypatch.setattr(module, name, Counted(name))
    return counts


def orthogonal(matrix: Tensor) -> Tensor:
    """Newton-Schulz' polynomial of the singular values, float64."""
    a, b, c = COEFFICIENTS
    left, values, right = np.linalg.svd(matrix.cpu().double().numpy(), full_matrices=False)
    values = values / (np.linalg.norm(values) + 1e-7)
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    return torch.from_numpy(left * values @ right)


def oracle(optimizer: Optimizer, name: str, weight: Tensor, gradient: Tensor, step: int) -> tuple[Tensor, States]:
    """The weight and the states, not yet rounded, that an update makes of what is stored: float64, on the CPU."""
    rule = optimizer.rule_of(name)
    states = {state: tensor.cpu().double() for state, tensor in optimizer.states_of(name).items()}
    weight, gradient = weight.cpu().double(), gradient.cpu().double()
    if isinstance(rule, Adam):
        m = 0.9 * states["exp_avg"] + 0.1 * gradient
        v = 0.95 * states["exp_avg_sq"] + 0.05 * gradient**2
        change = m / (1 - 0.9**step) / ((v / (1 - 0.95**step)).sqrt() + 1e-8)
        new = {"exp_avg": m, "exp_avg_sq": v}
    else:
        momentum = rule.momentum * states["momentum"] + gradient
        is_muon = isinstance(rule, Muon)
        change = update_scale("match_rms_adamw", *weight.shape) * orthogonal(momentum) if is_muon else momentum
        new = {"momentum": momentum}
    return (1 - LR * rule.weight_decay) * weight - LR * change, new


@EVERY_NAME
def test_a_step_is_the_references_and_the_formulas(name: str, built_with: Build, device: torch.device) -> None:
    """After each step both go on from the reference's states: beside the middle of two codes a last bit decides."""
    model = model_of(1, device)
    other = copy.deepcopy(model)
    own, plain = built_with(kernels, name, model), built_with(reference, name, other)
    for step in range(1, STEPS + 1):
        give_gradients(model, step)
        give_gradients(other, step)
        expected = {
            key: oracle(own, key, parameter.detach(), parameter.grad, step)
            for key, parameter in model.named_parameters()
        }
        own.step(LR)
        plain.step(LR)
        for (key, weight), reference_weight in zip(model.named_parameters(), other.parameters(), strict=True):
            exact, states = expected[key]
            # The iteration stretches the last bits of the momentum's small singular values.
            tolerance = {"rtol": 1e-5, "atol": 1e-5 if isinstance(own.rule_of(key), Muon) else 1e-6}
            torch.testing.assert_close(weight, reference_weight, **tolerance)
            torch.testing.assert_close(weight.detach().cpu().double(), exact, **tolerance)
            for state, stored in own.states_of(key).items():
                assert_near(stored.cpu().double(), states[state], own.codecs_of(key)[state])
        assert_same_codes(own.state_tensors(), plain.state_tensors())
        own.load_state_tensors(plain.state_tensors())
        model.load_state_dict(other.state_dict())


def assert_near(stored: Tensor, exact: Tensor, codec: object) -> None:
    """Within half a step of its codes, or, not rounded, within the rounding of float32."""
    half = 2e-6
    if isinstance(codec, Blockwise):
        half = 0.5 / codec.levels if codec.kind == "linear" else 0.0075
    assert (stored - exact).abs().max() <= exact.abs().max() * half * (1 + 1e-4)


def assert_same_codes(own: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Codes are equal but for a thousandth, where they are neighbours; all else is to the rounding of float32."""
    assert own.keys() == other.keys()
    names = [name for name in own if name.endswith(".codes")]
    assert names, "nothing is stored in 8 bits"
    apart = torch.cat([(own[name].int() - other[name].int()).abs().flatten() for name in names])
    assert apart.max() <= 1 and apart.sum() <= 1e-3 * len(apart)
    for name in own.keys() - set(names):
        torch.testing.assert_close(own[name], other[name], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
def test_a_step_of_muon_in_half_precision_is_the_formulas(kind: str, device: torch.device) -> None:
    """By the symmetric product, which float32 does without: a matrix of one tile, larger ones, a tall and a wide one.

    In float16, as Triton's interpreter cannot multiply bfloat16. The iteration errs by less than 1 % of the update;
    the momentum never passes through it.
    """
    rule = Muon(0.95, False, 5, "match_rms_adamw", 0.1, dtype=torch.float16, gram=kernels.gram)
    codecs = {"momentum": Blockwise(kind, True, 256)}
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"{rows}x{columns}": nn.Parameter(torch.randn(rows, columns, generator=generator).to(device))
        for rows, columns in [(40, 64), (70, 200), (200, 70), (140, 130)]
    }
    optimizer = Optimizer([Group(rule, weights, codecs, kernels)])
    for step in range(1, STEPS + 1):
        for weight in weights.values():
            weight.grad = torch.randn(weight.shape, generator=generator).to(device)
        before = {name: weight.detach().cpu().double() for name, weight in weights.items()}
        expected = {
            name: oracle(optimizer, name, weight.detach(), weight.grad, step) for name, weight in weights.items()
        }
        optimizer.step(LR)
        for name, weight in weights.items():
            exact, states = expected[name]
            error = torch.linalg.vector_norm(weight.detach().cpu().double() - exact)
            assert error < 0.01 * torch.linalg.vector_norm(exact - (1 - LR * rule.weight_decay) * before[name])
            assert_near(optimizer.states_of(name)["momentum"].cpu().double(), states["momentum"], codecs["momentum"])


@pytest.mark.parametrize("rule", [Adam(0.9, 0.95, 1e-8, 0.1), SGD(0.9, True, 0.1)], ids=["adamw", "sgdm"])
@pytest.mark.parametrize("kind", ["linear", "dynamic"])
def test_a_step_on_rows_that_are_whole_blocks_is_a_slice_of_the_wholes(
    rule: Adam | SGD, kind: str, device: torch.device
) -> None:
    """As a rank makes it that owns a shard: 40, 24 and 9 rows of 64, in blocks of 4 rows, the last one short."""
    rows = (40, 24, 9)
    weight, *gradients = torch.randn(3, sum(rows), 64, generator=torch.Generator().manual_seed(0)).to(device)
    codecs = {state: Blockwise(kind, state != "exp_avg_sq", 256) for state in rule.states}
    results = []
    for sizes in ((sum(rows),), rows):
        shards = [nn.Parameter(shard.clone()) for shard in weight.split(sizes)]
        optimizers = [Optimizer([Group(rule, {"w": shard}, codecs, kernels)]) for shard in shards]
        for gradient in gradients:
            for optimizer, shard, part in zip(optimizers, shards, gradient.split(sizes), strict=True):
                shard.grad = part.clone()
                optimizer.step(LR)
        stored = [
            optimizer.state_tensors() | {"weight": shard} for optimizer, shard in zip(optimizers, shards, strict=True)
        ]
        results.append({name: torch.cat([own[name] for own in stored]) for name in stored[0] if name != "step"})
    whole, joined = results
    assert all(torch.equal(joined[name], tensor) for name, tensor in whole.items())


class TestLaunches:
    @pytest.mark.parametrize("name", ["AdamW-8L", "AdamW-8D", "SGDM-8L"])
    def test_a_step_over_two_hundred_tensors_is_one(
        self, name: str, built_with: Build, launches: Counter[str], device: torch.device
    ) -> None:
        model = model_of(17, device)
        give_gradients(model, 1)
        built_with(kernels, name, model).step(LR)
        assert len(list(model.parameters())) > 200
        assert launches == {"momentum_kernel" if "SGDM" in name else "adam_kernel": 1}

    @pytest.mark.parametrize("layers", [2, 17])
    def test_those_of_muon_are_as_many_as_there_are_shapes(
        self, layers: int, built_with: Build, launches: Counter[str], device: torch.device
    ) -> None:
        """Three shapes, the transposed ones taken together: a momentum each, and two products an iteration."""
        model = model_of(layers, device)
        give_gradients(model, 1)
        built_with(kernels, "Muon-8L+AdamW-8D", model, "bfloat16").step(LR)
        assert launches == {"momentum_kernel": 3, "_gram_kernel": 3 * 5 * 2, "adam_kernel": 1}

    def test_float32_is_multiplied_by_pytorch(
        self, built_with: Build, launches: Counter[str], device: torch.device
    ) -> None:
        model = model_of(2, device)
        give_gradients(model, 1)
        built_with(kernels, "Muon-8L", model, "float32").step(LR)
        assert launches == {"momentum_kernel": 3}


class TestNewtonSchulz:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 0.01)])
    @pytest.mark.parametrize("shape", [(3, 64, 192), (2, 100, 36), (1, 7, 7)], ids=["wide", "tall", "small"])
    def test_with_the_kernels_product_it_is_that_of_float64(
        self, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, device: torch.device
    ) -> None:
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        result = orthogonalize(matrices, dtype=dtype, gram=kernels.gram)
        assert result.dtype == torch.float32
        plain = orthogonalize(matrices, dtype=dtype)
        exact = torch.stack([orthogonal(matrix) for matrix in matrices]).to(device)
        for wanted in (exact, plain.double()):
            assert torch.linalg.vector_norm(result - wanted) < tolerance * torch.linalg.vector_norm(wanted)

    def test_muon_iterates_in_bfloat16_by_the_kernels_product(self, built_with: Build, device: torch.device) -> None:
        optimizer = built_with(kernels, "Muon-8L", model_of(1, device), "bfloat16")
        rules = {group.rule for group in optimizer.groups if isinstance(group.rule, Muon)}
        assert {(rule.gram, rule.dtype) for rule in rules} == {(kernels.gram, torch.bfloat16)}
