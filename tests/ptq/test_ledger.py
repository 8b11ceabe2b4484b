from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from coolbits.ptq.gptq import gptq
from coolbits.ptq.ledger import relative_error, write_ledger
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import GPTQ, Grid

RECIPE = GPTQ(grid=Grid(bits=3, group_size=8))


def test_the_ledger_has_a_row_a_module_and_shows_fallbacks(tmp_path: Path) -> None:
    weight = torch.randn(4, 16)
    results = {
        "whole": gptq(weight, torch.eye(16, dtype=torch.float64), RECIPE),
        "broken": gptq(weight, torch.full((16, 16), torch.nan, dtype=torch.float64), RECIPE),
    }
    write_ledger(results, tmp_path)
    ledger = pd.read_parquet(tmp_path / "ledger.parquet").set_index("module")
    assert ledger.index.tolist() == ["whole", "broken"]
    assert ledger["method"].tolist() == ["gptq", "rtn"]
    assert ledger["requested"].tolist() == ["gptq", "gptq"]
    assert ledger.loc["broken", "reason"] == "the Hessian is not finite"
    assert pd.isna(ledger.loc["broken", "proxy_loss"])
    assert ledger.loc["whole", "damping"] == 0.01


def test_columns_have_one_type_whatever_ran(tmp_path: Path) -> None:
    result = gptq(torch.randn(4, 16), torch.eye(16, dtype=torch.float64), RECIPE)
    unset = replace(result.entry, order=None, damping=None, attempts=None, dead_columns=None, proxy_loss=None)
    schemas = []
    for entry in (result.entry, unset):
        write_ledger({"a": replace(result, entry=entry)}, tmp_path)
        schemas.append(pd.read_parquet(tmp_path / "ledger.parquet").dtypes.to_dict())
    assert schemas[0] == schemas[1]


def test_the_relative_error_is_that_of_the_weights() -> None:
    weight = torch.tensor([[3.5, 0.4]])
    layer = round_to_nearest(weight, Grid(bits=3))
    assert layer.weight().tolist() == [[3.0, 0.0]]
    assert relative_error(weight, layer) == pytest.approx((0.25 + 0.16) ** 0.5 / (12.25 + 0.16) ** 0.5)
    assert relative_error(torch.zeros(1, 2), round_to_nearest(torch.zeros(1, 2), Grid(bits=3))) == 0


@pytest.mark.parametrize("size", [1e-36, 1e-20, 1.0, 1e20, 1e30])
def test_the_relative_error_of_weights_whose_squares_leave_float32(size: float) -> None:
    """It was 0 of small ones, whatever their errors, and no number of large ones."""
    weight = size * torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    layer = round_to_nearest(weight, Grid(bits=3))
    error = (weight.double() - layer.weight().double()).norm() / weight.double().norm()
    assert relative_error(weight, layer) == pytest.approx(float(error), rel=1e-6)
