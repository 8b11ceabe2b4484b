"""Tensors of a saved training come back as they were written, or are refused by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.loops.tensors import WEIGHTS, read_tensors, read_weights


def test_weights_are_float32_and_counts_stay_integers(tmp_path: Path) -> None:
    weights = {"conv.weight": torch.randn(3, 2), "norm.batches": torch.tensor(7)}
    save_file(weights, tmp_path / WEIGHTS)
    read = read_weights(tmp_path)
    assert {name: tensor.dtype for name, tensor in read.items()} == {
        "conv.weight": torch.float32,
        "norm.batches": torch.int64,
    }
    assert all(read[name].equal(weights[name]) for name in weights)
    save_file(weights | {"conv.weight": torch.zeros(3, dtype=torch.float64)}, tmp_path / WEIGHTS)
    with pytest.raises(CoolbitsError, match=r"conv\.weight is torch\.float64, but training keeps weights in torch\.fl"):
        read_weights(tmp_path)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoolbitsError, match=r"gone: no such file; delete its directory to train again"):
        read_tensors(tmp_path / "gone")
    (tmp_path / "torn").write_bytes(b"torn")
    with pytest.raises(CoolbitsError, match=r"torn: not readable as safetensors \(.*\); delete its directory"):
        read_tensors(tmp_path / "torn")
