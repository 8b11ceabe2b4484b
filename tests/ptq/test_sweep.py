"""The compiled sweep against PyTorch's, and the choice between them."""

import pytest
import torch

from coolbits.artifacts.code import code_slice
from coolbits.ptq import sweep as sweeps
from coolbits.ptq.sweep import Groups, Swept, sweep
from coolbits.stages import STAGES
from coolbits.study.recipes.methods import GPTQ, Grid, ScaleSearch

# A text is evaluated at the first test that it marks: collecting compiles nothing.
needs_compiler = pytest.mark.skipif("not sweeps.available()", reason="there is no C++ compiler")


def swept(
    rows: int, inputs: int, size: int, recipe: GPTQ, static: bool, precision: torch.dtype = torch.float64
) -> Swept:
    generator = torch.Generator().manual_seed(rows * inputs)
    columns = torch.randn(inputs, rows, generator=generator, dtype=torch.float64)
    spread = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64).mul_(0.2).triu(1)
    spread += torch.eye(inputs, dtype=torch.float64)
    tops = torch.full((rows,), float(recipe.grid.top))
    tops[: rows // 2] = 3  # two bits beside the grid's
    members = torch.arange(inputs, dtype=torch.int32) // size
    known = None
    if static:
        members = members[torch.randperm(inputs, generator=generator)]
        known = Groups(
            torch.rand(inputs // size, rows, generator=generator) + 0.1, torch.full((inputs // size, rows), 2.0)
        )
    return sweep(columns.to(precision), spread.to(precision), tops, members, known, recipe)


def both(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[Swept, Swept]:
    compiled = swept(*arguments)
    monkeypatch.setattr(sweeps, "compiled_span", None)
    monkeypatch.setattr(sweeps, "available", lambda: False)
    return compiled, swept(*arguments)


@needs_compiler
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 200])
@pytest.mark.parametrize("block_size", [1, 8, 24, 128])
@pytest.mark.parametrize("size", [8, 48])
@pytest.mark.parametrize("static", [False, True])
def test_the_compiled_sweep_finds_pytorchs_codes_and_scales(
    monkeypatch: pytest.MonkeyPatch, rows: int, block_size: int, size: int, static: bool
) -> None:
    recipe = GPTQ(grid=Grid(bits=4, group_size=size), block_size=block_size)
    compiled, plain = both(monkeypatch, rows, 48, size, recipe, static)
    assert torch.equal(compiled.codes, plain.codes)
    torch.testing.assert_close(compiled.groups, plain.groups, rtol=1e-6, atol=0)


@needs_compiler
@pytest.mark.parametrize("grid", [Grid(bits=8, group_size=8, symmetric=False), Grid(bits=3, search=ScaleSearch())])
@pytest.mark.parametrize("scales", ["current", "block"])
def test_so_it_does_on_other_grids(monkeypatch: pytest.MonkeyPatch, grid: Grid, scales: str) -> None:
    recipe = GPTQ(grid=grid, scales=scales, block_size=16)
    compiled, plain = both(monkeypatch, 40, 48, grid.group_size or 48, recipe, False)
    assert torch.equal(compiled.codes, plain.codes)
    torch.testing.assert_close(compiled.groups, plain.groups, rtol=1e-6, atol=0)


@needs_compiler
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 400])
@pytest.mark.parametrize("static", [False, True])
def test_in_float32_both_find_the_codes_of_float64_but_for_rows_that_met_a_tie(
    monkeypatch: pytest.MonkeyPatch, rows: int, static: bool
) -> None:
    # Of a symmetric grid the largest weight of every group is a tie.
    arguments = rows, 48, 8, GPTQ(grid=Grid(bits=4, group_size=8, symmetric=False), block_size=24), static
    exact = swept(*arguments).codes
    for found in both(monkeypatch, *arguments, torch.float32):
        assert (found.codes != exact).any(0).float().mean() < 0.02


@needs_compiler
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_threads_change_no_bit(precision: torch.dtype) -> None:
    arguments = (300, 64, 16, GPTQ(grid=Grid(bits=4, group_size=16), block_size=32), False, precision)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = swept(*arguments)
        torch.set_num_threads(3)
        together = swept(*arguments)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone.codes, together.codes)
    assert torch.equal(alone.groups.scales, together.groups.scales)


def test_without_a_compiler_pytorchs_serves(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("CXX", "no-such-compiler")
    assert not sweeps.available()
    assert swept(4, 16, 8, GPTQ(grid=Grid(bits=4, group_size=8)), False).codes.max() > 3


def test_its_source_is_in_the_slice_of_quantization() -> None:
    assert "coolbits.ptq.sweep:sweep.cpp" in code_slice(STAGES["quantized"]).modules
