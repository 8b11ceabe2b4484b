"""Updates with 8-bit states: PyTorch's against float64, the compiled ones against PyTorch's, bit for bit."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from coolbits import native
from coolbits.optim import compiled, kernels, lookups, reference
from coolbits.optim.adam import Adam
from coolbits.optim.codebook import middles
from coolbits.optim.codecs import Blockwise
from coolbits.optim.sgd import SGD
from coolbits.optim.steps import choose_steps

KINDS = ["linear", "dynamic"]
ADAM = Adam(0.9, 0.95, 1e-8, 0.1)
LR, STEPS = 1e-2, 12
# Whole blocks, a short last one, fewer elements than a block, one element, more than two dimensions.
SHAPES = [(64, 64), (33, 77), (100,), (1,), (3, 4, 5, 70)]
# A text is evaluated at the first test that it marks: collecting compiles nothing.
needs_compiler = pytest.mark.skipif("not compiled.available()", reason="no C++ compiler")

Run = dict[str, Tensor]


def tensors(seed: int, spread: float = 3.0) -> list[Tensor]:
    """Numbers of many magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator) * 10 ** (-spread * torch.rand(shape, generator=generator))
        for shape in SHAPES
    ]


def zeros(codec: Blockwise) -> list[dict[str, Tensor]]:
    return [codec.encode(torch.zeros(shape)) for shape in SHAPES]


def collect(**lists: list[Tensor] | list[dict[str, Tensor]]) -> Run:
    """All tensors of a run by name."""
    found = {}
    for name, items in lists.items():
        for index, item in enumerate(items):
            parts = item if isinstance(item, dict) else {"": item}
            found |= {f"{name}.{index}.{part}": tensor for part, tensor in parts.items()}
    return found


def run_adam(steps: ModuleType, first: str, second: str, block_size: int, rule: Adam = ADAM) -> Run:
    codecs = Blockwise(first, True, block_size), Blockwise(second, False, block_size)
    weights, averages, squares = tensors(0), zeros(codecs[0]), zeros(codecs[1])
    for step in range(1, STEPS + 1):
        gradients = tensors(step)
        steps.adam_step(weights, gradients, averages, squares, codecs, rule, torch.tensor(float(step)), LR)
    return collect(weights=weights, averages=averages, squares=squares)


def run_sgd(steps: ModuleType, kind: str, nesterov: bool, block_size: int) -> Run:
    codec, weights = Blockwise(kind, True, block_size), tensors(0)
    momenta = zeros(codec)
    for step in range(1, STEPS + 1):
        steps.sgd_step(weights, tensors(step), momenta, codec, SGD(0.9, nesterov, 0.1), LR)
    return collect(weights=weights, momenta=momenta)


def run_momentum(steps: ModuleType, kind: str, nesterov: bool, block_size: int) -> Run:
    codec = Blockwise(kind, True, block_size)
    momenta = zeros(codec)
    for step in range(1, STEPS + 1):
        directions = steps.momentum_step(tensors(step), momenta, codec, 0.95, nesterov)
    return collect(directions=directions, momenta=momenta)


def borders(kind: str, signed: bool, scale: float) -> Tensor:
    """The scale, and the float32 numbers around those where its block's code changes, three on either side."""
    codec = Blockwise(kind, signed)
    halves = torch.arange(-codec.levels if signed else 0, codec.levels) + 0.5
    places = middles(signed) if kind == "dynamic" else halves / codec.levels
    values = [places * scale]
    for direction in (-torch.inf, torch.inf):
        value = values[0]
        for _ in range(3):
            value = value.nextafter(torch.tensor(direction))
            values.append(value)
    return torch.cat([torch.tensor([scale]), *values]).clamp(-scale if signed else 0, scale)


def assert_same(one: Run, other: Run) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


class TestReference:
    """Against float64 arithmetic around the same codes: the new states are used before they are rounded."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("corrected_by", [None, 0.05])
    def test_adam(self, kind: str, corrected_by: float | None) -> None:
        codecs = Blockwise(kind, True, 64), Blockwise(kind, False, 64)
        rule = Adam(0.9, 0.95, 1e-8, 0.1, corrected_by)
        weights, averages, squares = tensors(0), zeros(codecs[0]), zeros(codecs[1])
        decay = 0.1 if corrected_by is None else 0.1 * LR / corrected_by
        for step in range(1, STEPS + 1):
            gradients = tensors(step)
            expected = []
            states = zip(weights, gradients, averages, squares, strict=True)
            for weight, gradient, average, square in states:
                w, g = weight.double().numpy(), gradient.double().numpy()
                m = 0.9 * codecs[0].decode(average).double().numpy() + 0.1 * g
                v = 0.95 * codecs[1].decode(square).double().numpy() + 0.05 * g**2
                corrected = m / (1 - 0.9**step), v / (1 - 0.95**step)
                w = (1 - LR * decay) * w - LR * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
                expected.append((w, m, v))
            reference.adam_step(weights, gradients, averages, squares, codecs, rule, torch.tensor(float(step)), LR)
            for (w, m, v), weight, average, square in zip(expected, weights, averages, squares, strict=True):
                np.testing.assert_allclose(weight, w, rtol=1e-5, atol=1e-5 * np.abs(w).max())
                for codec, parts, state in ((codecs[0], average, m), (codecs[1], square, v)):
                    own = codec.round(torch.from_numpy(state).float())
                    torch.testing.assert_close(own["scales"], parts["scales"])
                    assert (own["codes"] != parts["codes"]).float().mean() < 0.01, "all but those at a middle"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("nesterov", [False, True])
    def test_sgd_and_momentum(self, kind: str, nesterov: bool) -> None:
        codec, weights = Blockwise(kind, True, 64), tensors(0)
        momenta, others = zeros(codec), zeros(codec)
        for step in range(1, STEPS + 1):
            gradients = tensors(step)
            expected = []
            for weight, gradient, parts in zip(weights, gradients, momenta, strict=True):
                w, g, m = (tensor.double() for tensor in (weight, gradient, codec.decode(parts)))
                m = 0.9 * m + g
                direction = 0.9 * m + g if nesterov else m
                expected.append((direction, (1 - LR * 0.1) * w - LR * direction))
            directions = reference.momentum_step(gradients, others, codec, 0.9, nesterov)
            reference.sgd_step(weights, gradients, momenta, codec, SGD(0.9, nesterov, 0.1), LR)
            assert_same(collect(momenta=momenta), collect(momenta=others))
            for (direction, w), own, weight in zip(expected, directions, weights, strict=True):
                torch.testing.assert_close(own.double(), direction, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(weight.double(), w, rtol=1e-5, atol=1e-6)

    def test_states_are_changed_in_place(self) -> None:
        codec = Blockwise("linear", True)
        momenta = zeros(codec)
        addresses = [part.data_ptr() for parts in momenta for part in parts.values()]
        reference.momentum_step(tensors(1), momenta, codec, 0.9, False)
        assert addresses == [part.data_ptr() for parts in momenta for part in parts.values()]
        assert all(parts["scales"].all() for parts in momenta)


@needs_compiler
class TestCompiled:
    @pytest.mark.parametrize("first", KINDS)
    @pytest.mark.parametrize("second", KINDS)
    @pytest.mark.parametrize("block_size", [2048, 100])
    def test_adam_is_the_references_bit_for_bit(self, first: str, second: str, block_size: int) -> None:
        assert_same(*(run_adam(steps, first, second, block_size) for steps in (reference, compiled)))

    def test_adamc_is_too(self) -> None:
        rule = Adam(0.9, 0.95, 1e-8, 0.1, corrected_by=0.05)
        assert_same(*(run_adam(steps, "dynamic", "dynamic", 256, rule) for steps in (reference, compiled)))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("exponent", [-140, -101, -99, -30, 0, 60])
    def test_codes_are_the_references_where_the_last_bit_of_a_quotient_decides(self, kind: str, exponent: int) -> None:
        """Among them scales whose inverse is no normal number; without memory a state is the gradient or its square."""
        codecs, rule = (Blockwise(kind, True), Blockwise(kind, False)), Adam(0.0, 0.0, 1e-8, 0.1)
        scales = torch.rand(20, generator=torch.Generator().manual_seed(exponent)).add(1).ldexp(torch.tensor(exponent))
        gradients = [borders(kind, True, scale) for scale in scales.tolist()]
        gradients += [borders(kind, False, scale).sqrt() for scale in scales.tolist()]
        runs = []
        for steps in (reference, compiled):
            weights = [torch.zeros_like(gradient) for gradient in gradients]
            states = [[codec.encode(weight) for weight in weights] for codec in codecs]
            steps.adam_step(weights, gradients, *states, codecs, rule, torch.tensor(1.0), LR)
            runs.append(collect(weights=weights, averages=states[0], squares=states[1]))
        assert_same(*runs)

    @pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
    def test_no_cell_of_the_look_up_has_more_than_two_codes(self, signed: bool) -> None:
        cells = lookups.cells(signed)
        near, far = cells & 255, cells >> 8 & 255
        assert (near != far).sum() == 255 and (near - far).abs().max() == 1

    def test_other_signs_than_those_of_moments_are_refused(self) -> None:
        weight, codecs = torch.zeros(8), [Blockwise("linear", signed) for signed in (True, False)]
        signed, unsigned = ([codec.encode(weight)] for codec in codecs)
        with pytest.raises(ValueError, match="a signed first moment and an unsigned second one"):
            compiled.adam_step([weight], [weight], signed, signed, (codecs[0], codecs[0]), ADAM, torch.tensor(1.0), LR)
        with pytest.raises(ValueError, match="take a signed momentum"):
            compiled.momentum_step([weight], unsigned, codecs[1], 0.9, False)

    @pytest.mark.parametrize("run", [run_sgd, run_momentum])
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("nesterov", [False, True])
    @pytest.mark.parametrize("block_size", [2048, 100])
    def test_sgd_and_momentum_are_too(
        self, run: Callable[..., Run], kind: str, nesterov: bool, block_size: int
    ) -> None:
        assert_same(*(run(steps, kind, nesterov, block_size) for steps in (reference, compiled)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_number_of_threads_changes_nothing(self, kind: str) -> None:
        before, runs = torch.get_num_threads(), []
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                runs.append(run_adam(compiled, kind, kind, 10))
        finally:
            torch.set_num_threads(before)
        assert_same(*runs)

    def test_gradients_of_another_layout_or_dtype_are_read_right(self) -> None:
        codec, gradient = Blockwise("linear", True), torch.randn(30, 20)
        parts = [codec.encode(torch.zeros(20, 30))]
        (direction,) = compiled.momentum_step([gradient.T], parts, codec, 0.9, False)
        assert torch.equal(direction, gradient.T)
        parts = [codec.encode(torch.zeros(30, 20))]
        (direction,) = compiled.momentum_step([gradient.bfloat16()], parts, codec, 0.9, False)
        assert torch.equal(direction, gradient.bfloat16().float())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda a: a | {"weights": a["weights"][:1]}, r"gradients have \[8, 8\] elements, not \[8\]"),
            (lambda a: a | {"gradients": [torch.zeros(7), torch.zeros(8)]}, r"gradients have \[7, 8\] elements"),
            (lambda a: a | {"weights": [weight.bfloat16() for weight in a["weights"]]}, "weights are torch.bfloat16"),
            (
                lambda a: a | {"weights": [a["weights"][0].double(), a["weights"][1]]},
                "float32 on cpu and torch.float64 on cpu; the compiled updates take contiguous torch.float32 on",
            ),
            (lambda a: a | {"weights": [torch.zeros(4, 2).T] * 2}, "weights are .*, not contiguous"),
            (lambda a: a | {"weights": [weight.to("meta") for weight in a["weights"]]}, "weights are .* on meta"),
            (lambda a: a | {"codec": Blockwise("dynamic", True, 4)}, "codes of momenta are torch.int8"),
            (lambda a: a | {"codec": Blockwise("linear", True, 8)}, r"scales of momenta have \[2, 2\] elements"),
            (
                lambda a: a | {"momenta": [parts | {"codes": parts["codes"][:7]} for parts in a["momenta"]]},
                r"codes of momenta have \[7, 7\] elements, not \[8, 8\]",
            ),
            (
                lambda a: a | {"momenta": [parts | {"scales": parts["scales"].double()} for parts in a["momenta"]]},
                "scales of momenta are torch.float64",
            ),
        ],
        ids=["fewer", "sizes", "dtype", "dtypes", "strides", "device", "codec", "block", "codes", "scales"],
    )
    def test_what_does_not_fit_is_refused(self, change: Callable[[dict], dict], message: str) -> None:
        """Its memory would be read, and written, beside its end or as other numbers."""
        codec, weights = Blockwise("linear", True, 4), [torch.zeros(8), torch.zeros(8)]
        momenta = [codec.encode(weight) for weight in weights]
        arguments = {"weights": weights, "gradients": [torch.zeros(8)] * 2, "momenta": momenta, "codec": codec}
        with pytest.raises(ValueError, match=message):
            compiled.sgd_step(**change(arguments), rule=SGD(0.9, False, 0.1), lr=LR)

    def test_moments_in_blocks_of_different_sizes_are_refused(self) -> None:
        codecs, weight = (Blockwise("linear", True, 256), Blockwise("linear", False, 2048)), torch.zeros(8)
        states = [[codec.encode(weight)] for codec in codecs]
        with pytest.raises(ValueError, match="one block size, not 256 and 2048"):
            compiled.adam_step([weight], [weight], *states, codecs, ADAM, torch.tensor(1.0), LR)

    def test_infinite_gradients_end_no_process(self) -> None:
        codecs = Blockwise("dynamic", True), Blockwise("dynamic", False)
        weight, gradient = torch.zeros(100), torch.full((100,), torch.nan)
        gradient[3:7] = torch.tensor([torch.inf, -torch.inf, 3e38, -3e38])
        states = [[codec.encode(weight)] for codec in codecs]
        for step in range(1, 4):
            compiled.adam_step([weight], [gradient], *states, codecs, ADAM, torch.tensor(float(step)), LR)
        assert not weight.isfinite().all()


class TestChoice:
    @needs_compiler
    def test_a_cpu_with_a_compiler_has_compiled_functions(self) -> None:
        assert choose_steps("cpu") is compiled

    def test_pytorchs_serve_if_asked_for_and_on_every_other_device(self) -> None:
        assert choose_steps("cpu", compile_cpu=False) is choose_steps("meta") is reference

    def test_on_a_gpu_without_kernels_pytorchs_serve_and_a_warning_says_so(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(kernels, "available", lambda: False)
        assert choose_steps("cuda") is reference
        assert "no Triton, C compiler or header of Python" in caplog.text

    def test_without_a_compiler_pytorchs_serve(self, fresh: pytest.MonkeyPatch) -> None:
        fresh.setenv("CXX", "no-such-compiler")
        assert choose_steps("cpu") is reference

    def test_a_compiler_that_fails_is_logged(self, fresh: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        fresh.setenv("CXX", "false")
        assert choose_steps("cpu") is reference
        assert "cannot be compiled" in caplog.text

    @needs_compiler
    @pytest.mark.skipif(native._WIDE == (), reason="no processor of this kind has these")
    @pytest.mark.parametrize("lacking", ["avx512vbmi", "avx512f", "fma", "avx2"])
    def test_without_some_instructions_the_bits_are_the_same(
        self, fresh: pytest.MonkeyPatch, tmp_path: Path, lacking: str
    ) -> None:
        real, compiler = os.environ.get("CXX", "g++"), tmp_path / "compiler"
        macros = subprocess.check_output([real, "-march=native", "-dM", "-E", "-x", "c++", os.devnull], text=True)
        if f"__{lacking.upper()}__" not in macros:
            pytest.skip("this processor has none of these: the same code again")
        # Which code is compiled hangs on the instructions alone; optimizing it less takes half the time.
        compiler.write_text(f'#!/bin/sh\nexec {real} "$@" -O1 -mno-{lacking}\n')
        compiler.chmod(0o755)
        fresh.setenv("CXX", str(compiler))
        fresh.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
        for kind in KINDS:
            assert_same(*(run_adam(steps, kind, kind, 256) for steps in (reference, compiled)))
