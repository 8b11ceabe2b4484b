"""The fused updates against the plain PyTorch ones, and against the formulas in float64."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

from coolbits.optim import kernels, reference
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Blockwise, Parts
from coolbits.optim.kernels import steps
from coolbits.optim.sgd import SGD

LR = 0.01
ADAM = Adam(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
SIZES = [1, 7, 255, 256, 257, 2047, 2048, 2049]


@dataclass
class Problem:
    """Weights, and a list of gradients for each of two steps."""

    weights: list[Tensor]
    gradients: list[list[Tensor]]

    def states(self, codec: Blockwise) -> list[Parts]:
        return [codec.encode(torch.zeros_like(weight)) for weight in self.weights]


def problem(device: torch.device, sizes: list[int], seed: int = 0) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> list[Tensor]:
        return [torch.randn(size, generator=generator).to(device) for size in sizes]

    return Problem(draw(), [draw() for _ in range(2)])


def assert_same_state(actual: list[Parts], expected: list[Parts]) -> None:
    """Scales agree; codes differ by one at most, and only where a value lay beside the middle of two codes: at few.

    From then on both are the same, so that what follows can be compared as closely.
    """
    differences = 0
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours["scales"], theirs["scales"], rtol=1e-5, atol=1e-12)
        distance = (ours["codes"].int() - theirs["codes"].int()).abs()
        assert (distance <= 1).all()
        differences += int(distance.sum())
        for name, part in ours.items():
            part.copy_(theirs[name])
    assert differences <= 2 + 1e-3 * sum(parts["codes"].numel() for parts in actual)


codecs = st.builds(Blockwise, st.sampled_from(["linear", "dynamic"]), st.just(True), st.sampled_from([100, 256, 2048]))
problems = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
        "seed": st.integers(0, 1000),
    }
)


@settings(max_examples=8)
@given(codec=codecs, given_problem=problems)
def test_adam_is_the_plain_update(device: torch.device, codec: Blockwise, given_problem: dict) -> None:
    both = (codec, Blockwise(codec.kind, False, codec.block_size))
    here = problem(device, **given_problem)
    there = copy.deepcopy(here)
    moments, expected = ([here.states(one) for one in both] for _ in range(2))
    for number in (1, 2):
        step = torch.tensor(float(number), device=device)
        kernels.adam_step(here.weights, here.gradients[number - 1], *moments, both, ADAM, step, LR)
        reference.adam_step(there.weights, there.gradients[number - 1], *expected, both, ADAM, step, LR)
        torch.testing.assert_close(here.weights, there.weights, rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(moments, expected, strict=True):
            assert_same_state(ours, theirs)


@settings(max_examples=8)
@given(codec=codecs, given_problem=problems, nesterov=st.booleans())
def test_sgd_is_the_plain_update(device: torch.device, codec: Blockwise, given_problem: dict, nesterov: bool) -> None:
    here = problem(device, **given_problem)
    there = copy.deepcopy(here)
    momenta, expected = here.states(codec), here.states(codec)
    rule = SGD(momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    for ours, theirs in zip(here.gradients, there.gradients, strict=True):
        kernels.sgd_step(here.weights, ours, momenta, codec, rule, LR)
        reference.sgd_step(there.weights, theirs, expected, codec, rule, LR)
        torch.testing.assert_close(here.weights, there.weights, rtol=1e-5, atol=1e-6)
        assert_same_state(momenta, expected)


@settings(max_examples=8)
@given(codec=codecs, given_problem=problems, nesterov=st.booleans())
def test_momentum_is_the_plain_update(
    device: torch.device, codec: Blockwise, given_problem: dict, nesterov: bool
) -> None:
    here = problem(device, **given_problem)
    momenta, expected = here.states(codec), here.states(codec)
    for gradients in here.gradients:
        directions = kernels.momentum_step(gradients, momenta, codec, 0.9, nesterov)
        wanted = reference.momentum_step(gradients, expected, codec, 0.9, nesterov)
        torch.testing.assert_close(directions, wanted, rtol=1e-5, atol=1e-5)
        assert_same_state(momenta, expected)


def decoded(states: list[Parts], codec: Blockwise) -> list[Tensor]:
    """Float64 values of the codes."""
    return [codec.decode(parts).double() for parts in states]


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
@pytest.mark.parametrize("corrected_by", [None, 0.02])
def test_adam_is_its_formula(device: torch.device, kind: str, corrected_by: float | None) -> None:
    both = Blockwise(kind, True, 256), Blockwise(kind, False, 256)
    rule = Adam(0.9, 0.95, 1e-8, 0.1, corrected_by)
    here = problem(device, [3, 700])
    first, second = (here.states(codec) for codec in both)
    for number, gradients in enumerate(here.gradients, 1):
        weights = [weight.double() for weight in here.weights]
        averages = [0.9 * m + 0.1 * g for m, g in zip(decoded(first, both[0]), gradients, strict=True)]
        squares = [0.95 * v + 0.05 * g.double() ** 2 for v, g in zip(decoded(second, both[1]), gradients, strict=True)]
        step = torch.tensor(float(number), device=device)
        kernels.adam_step(here.weights, gradients, first, second, both, rule, step, LR)
        for weight, before, m, v in zip(here.weights, weights, averages, squares, strict=True):
            change = (m / (1 - 0.9**number)) / ((v / (1 - 0.95**number)).sqrt() + 1e-8)
            expected = before * (1 - LR * rule.decay(LR)) - LR * change
            # Where linear codes lose the second moment a change can be 1e6 times the usual one.
            torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)
        for state, codec, exact in ((first, both[0], averages), (second, both[1], squares)):
            for now, new in zip(decoded(state, codec), exact, strict=True):
                assert (now - new).abs().max() <= new.abs().max() * (0.0075 if kind == "dynamic" else 0.004)


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_its_formula(device: torch.device, kind: str, nesterov: bool) -> None:
    codec, rule = Blockwise(kind, True, 256), SGD(0.9, nesterov, 0.1)
    here = problem(device, [3, 700])
    momenta = here.states(codec)
    for gradients in here.gradients:
        weights = [weight.double() for weight in here.weights]
        news = [0.9 * m + g for m, g in zip(decoded(momenta, codec), gradients, strict=True)]
        kernels.sgd_step(here.weights, gradients, momenta, codec, rule, LR)
        for weight, before, m, g in zip(here.weights, weights, news, gradients, strict=True):
            direction = 0.9 * m + g if nesterov else m
            torch.testing.assert_close(weight.double(), before * (1 - LR * 0.1) - LR * direction, rtol=0, atol=1e-6)
        for now, new in zip(decoded(momenta, codec), news, strict=True):
            assert (now - new).abs().max() <= new.abs().max() * (0.0075 if kind == "dynamic" else 0.004)


def calls(here: Problem) -> Iterator[tuple[str, dict]]:
    """Each update with arguments that fit."""
    codec, square = Blockwise("linear", True, 256), Blockwise("linear", False, 256)
    momenta, step = here.states(codec), torch.tensor(1.0, device=here.weights[0].device)
    common = {"gradients": here.gradients[0]}
    yield "momentum_step", {**common, "momenta": momenta, "codec": codec, "momentum": 0.9, "nesterov": True}
    common["weights"] = here.weights
    yield "sgd_step", {**common, "momenta": momenta, "codec": codec, "rule": SGD(0.9, True, 0.1), "lr": LR}
    states = {"exp_avg": momenta, "exp_avg_sq": here.states(square), "codecs": (codec, square)}
    yield "adam_step", {**common, **states, "rule": ADAM, "step": step, "lr": LR}


@pytest.mark.parametrize("index", range(3), ids=["momentum", "sgd", "adam"])
def test_two_hundred_tensors_are_one_launch(index: int, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    grids = []

    class Counted:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            grids.append(tuple(grid))
            return lambda *arguments, **options: None

    monkeypatch.setattr(steps, "adam_kernel", Counted())
    monkeypatch.setattr(steps, "momentum_kernel", Counted())
    name, arguments = list(calls(problem(device, [5] * 200)))[index]
    getattr(kernels, name)(**arguments)
    assert grids == [(200,)]


@pytest.mark.parametrize("index", range(3), ids=["momentum", "sgd", "adam"])
def test_no_tensors_are_no_work(index: int, device: torch.device) -> None:
    name, arguments = list(calls(problem(device, [5])))[index]
    empty = {key: [] if isinstance(value, list) else value for key, value in arguments.items()}
    assert not getattr(kernels, name)(**empty)


def test_empty_tensors_among_others_are_passed_over(device: torch.device) -> None:
    for name, arguments in calls(problem(device, [0, 300, 0, 0, 2])):
        getattr(kernels, name)(**arguments)
    assert all(weight.isfinite().all() for weight in arguments["weights"])


def test_tensors_that_are_not_where_vectors_can_be_read(device: torch.device) -> None:
    aligned, codec = problem(device, [3000]), Blockwise("linear", True, 256)
    shifted = copy.deepcopy(aligned)
    for tensors in (shifted.weights, shifted.gradients[0]):
        tensors[0] = torch.cat([tensors[0][:1], tensors[0]])[1:]
    states = aligned.states(codec), shifted.states(codec)
    for here, momenta in zip((aligned, shifted), states, strict=True):
        kernels.sgd_step(here.weights, here.gradients[0], momenta, codec, SGD(0.9, True, 0.1), LR)
    assert torch.equal(aligned.weights[0], shifted.weights[0])
    assert_same_state(*states)


def test_tensors_may_have_any_shape(device: torch.device) -> None:
    codec = Blockwise("dynamic", True, 256)
    gradient = torch.randn(3, 5, 41, generator=torch.Generator().manual_seed(0)).to(device)
    cubic, flat = codec.encode(torch.zeros_like(gradient)), codec.encode(torch.zeros_like(gradient.flatten()))
    (direction,) = kernels.momentum_step([gradient], [cubic], codec, 0.9, True)
    (same,) = kernels.momentum_step([gradient.flatten()], [flat], codec, 0.9, True)
    assert direction.shape == gradient.shape and torch.equal(direction.flatten(), same)
    assert cubic["codes"].shape == gradient.shape and torch.equal(cubic["codes"].flatten(), flat["codes"])


def test_bfloat16_gradients_are_taken_at_their_value(device: torch.device) -> None:
    coarse = [gradient.bfloat16() for gradient in problem(device, [300, 2100]).gradients[0]]
    results = []
    for gradients in (coarse, [gradient.float() for gradient in coarse]):
        for name, arguments in calls(problem(device, [300, 2100])):
            returned = getattr(kernels, name)(**arguments | {"gradients": gradients})
            states = [*arguments.get("momenta", []), *arguments.get("exp_avg", []), *arguments.get("exp_avg_sq", [])]
            changed = returned or arguments["weights"]
            results.append([*changed, *(part for parts in states for part in parts.values())])
    for one, other in zip(results[:3], results[3:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def transposed(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.zeros(4, 2, device=tensors[0].device).mT, *tensors[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"weights": a["weights"][:1]}, r"gradients have \[8, 8\] elements, not \[8\]"),
        (lambda a: a | {"gradients": [g.double() for g in a["gradients"]]}, "gradients are torch.float64"),
        (
            lambda a: a | {"gradients": [a["gradients"][0].bfloat16(), a["gradients"][1]]},
            "bfloat16 on .* and torch.float",
        ),
        (lambda a: a | {"gradients": transposed(a["gradients"])}, "gradients are .* not contiguous"),
        (lambda a: a | {"codec": Blockwise("dynamic", True, 256)}, "codes of momenta are torch.int8"),
        (lambda a: a | {"codec": Blockwise("linear", True, 4)}, r"scales of momenta have \[1, 1\] elements"),
        (lambda a: a | {"gradients": [g.to("meta") for g in a["gradients"]]}, "gradients are .* on meta"),
        (lambda a: a | {name: [t.to("meta") for t in a[name]] for name in ("weights", "gradients")}, "for tensors on"),
    ],
    ids=["sizes", "dtype", "dtypes", "strides", "codec", "block", "device", "devices"],
)
def test_what_does_not_fit_is_refused(change, message: str, device: torch.device) -> None:
    _, arguments = list(calls(problem(device, [8, 8])))[1]
    with pytest.raises(ValueError, match=message):
        kernels.sgd_step(**change(arguments))


def test_block_sizes_of_one_launch_must_be_equal(device: torch.device) -> None:
    _, arguments = list(calls(problem(device, [8])))[2]
    arguments["codecs"] = Blockwise("linear", True, 256), Blockwise("linear", False, 2048)
    with pytest.raises(ValueError, match="256 and 2048"):
        kernels.adam_step(**arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="9 GB tensors: only on a GPU")
def test_offsets_beyond_32_bits() -> None:
    size, codec = 2**31 + 5, Blockwise("linear", True)
    if torch.cuda.mem_get_info()[0] < 2 * 4 * size + 2 * size:
        pytest.skip("not enough memory on this GPU")
    gradient = torch.ones(size, device="cuda")
    momentum = {
        "codes": torch.zeros(size, dtype=torch.int8, device="cuda"),
        "scales": torch.zeros(-(-size // 2048), device="cuda"),
    }
    (direction,) = kernels.momentum_step([gradient], [momentum], codec, 0.9, False)
    assert all(bool((part == value).all()) for part, value in ((direction, 1.0), (momentum["codes"], 127)))
