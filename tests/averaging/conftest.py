"""Members of an average: small Hugging Face directories."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

CONFIG = {"model_type": "gpt_neox", "hidden_size": 8, "transformers_version": "5.0"}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, tensors: dict[str, torch.Tensor], tokenizer: str = "{}", **config: object) -> Path:
        directory = tmp_path / name
        directory.mkdir(parents=True)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        (directory / "config.json").write_text(json.dumps(CONFIG | config))
        (directory / "tokenizer.json").write_text(tokenizer)
        (directory / "state.json").write_text("{}")
        return directory

    return write


@pytest.fixture
def tensors() -> Callable[..., dict[str, torch.Tensor]]:
    def tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randn(4, 3, generator=generator).to(dtype) for name in ("a.weight", "b.weight")}

    return tensors
