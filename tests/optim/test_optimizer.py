from collections.abc import Mapping
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.optim import compiled, reference
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise, Float32, StateCodec
from coolbits.optim.muon import Muon
from coolbits.optim.optimizer import Group, Optimizer, Rule
from coolbits.optim.sgd import SGD

RULES: dict[str, Rule] = {
    "adamw": Adam(0.9, 0.95, 1e-8, 0.1),
    "adamc": Adam(0.9, 0.95, 1e-8, 0.1, corrected_by=0.05),
    "sgd": SGD(0.9, True, 0.1),
    "muon": Muon(0.95, False, 5, "spectral", 0.1, dtype=torch.bfloat16),
}
EVERY_RULE = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
# A text is evaluated at the first test that it marks: collecting compiles nothing.
needs_compiler = pytest.mark.skipif("not compiled.available()", reason="no C++ compiler")


class Halves:
    """A codec of two parts: bfloat16, and what it lost, in bfloat16."""

    label, layout = "two halves", "halves"

    def zeros(self, like: Tensor) -> dict[str, Tensor]:
        return self.encode(torch.zeros_like(like))

    def encode(self, state: Tensor) -> dict[str, Tensor]:
        high = state.bfloat16()
        return {"high": high, "low": (state - high).bfloat16()}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        return parts["high"].float() + parts["low"].float()


def weights(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(8, 12, generator=generator)) for name in ("a", "b", "c")}


def build(rule: Rule, parameters: dict[str, nn.Parameter], codec: type[StateCodec] = Float32) -> Optimizer:
    codecs = {state: codec() for state in rule.states}
    return Optimizer([Group(rule, parameters, codecs)])


def update(optimizer: Optimizer, parameters: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(1000 + step)
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step(0.05)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@EVERY_RULE
def test_two_runs_are_equal_bit_for_bit(rule: Rule) -> None:
    runs = []
    for _ in range(2):
        parameters = weights()
        optimizer = build(rule, parameters)
        update(optimizer, parameters, range(10))
        runs.append((parameters, optimizer.state_tensors()))
    assert same(runs[0][0], runs[1][0]) and same(runs[0][1], runs[1][1])


@EVERY_RULE
@pytest.mark.parametrize("codec", [Float32, Halves])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(rule: Rule, codec: type[StateCodec]) -> None:
    parameters = weights()
    optimizer = build(rule, parameters, codec)
    update(optimizer, parameters, range(5))
    saved_weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    saved_state = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    update(optimizer, parameters, range(5, 10))

    resumed_weights = {name: nn.Parameter(tensor) for name, tensor in saved_weights.items()}
    resumed = build(rule, resumed_weights, codec)
    resumed.load_state_tensors(saved_state)
    update(resumed, resumed_weights, range(5, 10))
    assert same(parameters, resumed_weights) and same(optimizer.state_tensors(), resumed.state_tensors())


@EVERY_RULE
def test_it_finds_the_minimum_of_a_quadratic(rule: Rule) -> None:
    target, parameters = weights(seed=1), weights()
    optimizer = build(rule, parameters)

    def distance() -> float:
        return sum(float((parameters[name] - target[name]).detach().square().mean()) for name in target)

    start = distance()
    for step in range(400):
        for name, parameter in parameters.items():
            parameter.grad = (parameter - target[name]).detach()
        optimizer.step(0.05 * (1 - step / 400))
    assert distance() < 0.05 * start


class TestState:
    def test_names_are_those_of_parameter_and_state_and_a_step(self) -> None:
        names = build(RULES["adamw"], weights()).state_tensors().keys()
        assert names == {"step", *(f"{name}.{state}" for name in "abc" for state in ("exp_avg", "exp_avg_sq"))}

    def test_parts_of_a_codec_are_named_after_the_state(self) -> None:
        names = build(RULES["sgd"], weights(), Halves).state_tensors().keys()
        assert names == {"step", *(f"{name}.momentum.halves.{part}" for name in "abc" for part in ("high", "low"))}

    def test_it_starts_at_zero_and_counts_updates(self) -> None:
        parameters = weights()
        optimizer = build(RULES["adamw"], parameters)
        assert all(not tensor.any() for tensor in optimizer.state_tensors().values())
        update(optimizer, parameters, range(3))
        assert optimizer.state_tensors()["step"] == 3

    def test_live_parameters_are_updated_in_place(self) -> None:
        parameters = weights()
        address = parameters["a"].data_ptr()
        update(build(RULES["muon"], parameters), parameters, range(2))
        assert parameters["a"].data_ptr() == address

    def test_it_can_live_on_the_meta_device_to_be_measured(self) -> None:
        parameters = {"a": nn.Parameter(torch.empty(8, 12, device="meta"))}
        states = build(RULES["adamw"], parameters).state_tensors()
        assert sum(tensor.nbytes for tensor in states.values()) == 2 * 4 * 8 * 12 + 4


class TestCodecs:
    @EVERY_RULE
    def test_the_update_uses_the_state_before_it_is_rounded(self, rule: Rule) -> None:
        """After one update from a zero state, a coarse codec has had no say in the weights."""
        runs = []
        for codec in (Float32, Halves):
            parameters = weights()
            update(build(rule, parameters, codec), parameters, range(1))
            runs.append(parameters)
        assert same(*runs)

    @EVERY_RULE
    def test_a_close_codec_stays_close(self, rule: Rule) -> None:
        runs = []
        for codec in (Float32, Halves):
            parameters = weights()
            update(build(rule, parameters, codec), parameters, range(10))
            runs.append(parameters)
        for name in "abc":
            torch.testing.assert_close(runs[0][name], runs[1][name], rtol=0, atol=2e-3)


class TestShards:
    """A shard is some consecutive rows of a weight, as many as fill whole blocks; the last shard's may fill none."""

    ROWS, BLOCK = (2, 6, 5), 24  # 13 rows of 12 elements: a block is two rows, the last one half of that

    def updated(self, rule: Rule, kind: str, steps: ModuleType, rows: tuple[int, ...]) -> list[dict[str, Tensor]]:
        """Weights and states after five updates of a weight cut into shards of so many rows, shard by shard."""
        generator = torch.Generator().manual_seed(0)
        weight, *gradients = torch.randn(6, sum(rows), 12, generator=generator)
        shards = [nn.Parameter(shard.clone()) for shard in weight.split(rows)]
        codecs = {state: Blockwise(kind, state != "exp_avg_sq", self.BLOCK) for state in rule.states}
        optimizers = [Optimizer([Group(rule, {"w": shard}, codecs, steps)]) for shard in shards]
        for gradient in gradients:
            for optimizer, shard, part in zip(optimizers, shards, gradient.split(rows), strict=True):
                shard.grad = part.clone()
                optimizer.step(0.05)
        return [
            {"weight": shard.detach()} | optimizer.state_tensors()
            for optimizer, shard in zip(optimizers, shards, strict=True)
        ]

    @pytest.mark.parametrize("steps", [reference, pytest.param(compiled, marks=needs_compiler)])
    @pytest.mark.parametrize("kind", ["linear", "dynamic"])
    @pytest.mark.parametrize("rule", ["adamw", "adamc", "sgd"])
    def test_weights_codes_and_scales_are_slices_of_the_wholes(self, rule: str, kind: str, steps: ModuleType) -> None:
        """Each element's update is its block's affair, so that a rank can own rows and never see the others."""
        (whole,) = self.updated(RULES[rule], kind, steps, (sum(self.ROWS),))
        shards = self.updated(RULES[rule], kind, steps, self.ROWS)
        assert [len(shard["weight"]) for shard in shards] == list(self.ROWS)
        for name in whole.keys() - {"step"}:
            joined = torch.cat([shard[name] for shard in shards])
            assert joined.dtype == whole[name].dtype and torch.equal(joined, whole[name]), name

    def test_muon_needs_the_whole_matrix(self) -> None:
        """The momentum can stay in shards; Newton-Schulz mixes all rows."""
        (whole,) = self.updated(RULES["muon"], "linear", reference, (sum(self.ROWS),))
        shards = self.updated(RULES["muon"], "linear", reference, self.ROWS)
        for part in ("w.momentum.linear-24.codes", "w.momentum.linear-24.scales"):
            assert torch.equal(torch.cat([shard[part] for shard in shards]), whole[part])
        assert not torch.allclose(torch.cat([shard["weight"] for shard in shards]), whole["weight"], atol=1e-2)


class TestErrors:
    def test_a_missing_gradient_is_named(self) -> None:
        parameters = weights()
        optimizer = build(RULES["sgd"], parameters)
        with pytest.raises(ValueError, match="the parameter a has no gradient"):
            optimizer.step(0.1)

    def test_a_missing_gradient_in_any_group_leaves_all_as_it_was(self) -> None:
        parameters = weights()
        groups = [Group(RULES["sgd"], {name: parameters[name]}, {"momentum": Float32()}) for name in "abc"]
        optimizer, before = Optimizer(groups), {name: tensor.detach().clone() for name, tensor in parameters.items()}
        for name in "ab":
            parameters[name].grad = torch.ones_like(parameters[name])
        with pytest.raises(ValueError, match="the parameter c has no gradient"):
            optimizer.step(0.1)
        assert same(before, parameters) and not any(tensor.any() for tensor in optimizer.state_tensors().values())

    def test_no_parameters_are_refused(self) -> None:
        with pytest.raises(ValueError, match="without a parameter"):
            Optimizer([])

    @pytest.mark.parametrize("other", [Blockwise("linear", True, 50), Blockwise("dynamic", True, 48)])
    def test_codes_of_another_layout_are_refused_though_they_have_the_same_shapes(self, other: Blockwise) -> None:
        """Blocks of 48 or 50 elements: 96 have two scales either way."""
        own, given = (
            Optimizer([Group(RULES["sgd"], {"a": weights()["a"]}, {"momentum": codec})])
            for codec in (Blockwise("linear", True, 48), other)
        )
        with pytest.raises(CoolbitsError, match=r"missing a\.momentum\.linear-48\.codes"):
            own.load_state_tensors(given.state_tensors())

    def test_zero_grad_drops_gradients(self) -> None:
        parameters = weights()
        optimizer = build(RULES["sgd"], parameters)
        update(optimizer, parameters, range(1))
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in parameters.values())

    def test_a_missing_state_is_named(self) -> None:
        optimizer = build(RULES["sgd"], weights())
        state = optimizer.state_tensors()
        del state["b.momentum"]
        with pytest.raises(CoolbitsError, match=r"missing b\.momentum"):
            optimizer.load_state_tensors(state)

    def test_an_unknown_state_is_named(self) -> None:
        optimizer = build(RULES["sgd"], weights())
        with pytest.raises(CoolbitsError, match=r"unknown d\.momentum"):
            optimizer.load_state_tensors(optimizer.state_tensors() | {"d.momentum": torch.zeros(1)})

    @pytest.mark.parametrize("replacement", [torch.zeros(8, 12, dtype=torch.bfloat16), torch.zeros(12, 8)])
    def test_another_dtype_or_shape_is_refused_and_nothing_is_loaded(self, replacement: Tensor) -> None:
        parameters = weights()
        optimizer = build(RULES["sgd"], parameters)
        update(optimizer, parameters, range(1))
        before = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
        with pytest.raises(CoolbitsError, match=r"optimizer state c\.momentum is torch\."):
            optimizer.load_state_tensors(
                {name: torch.zeros_like(tensor) for name, tensor in before.items()} | {"c.momentum": replacement}
            )
        assert same(before, optimizer.state_tensors())
