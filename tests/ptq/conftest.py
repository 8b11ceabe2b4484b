"""Small things to quantize: correlated layers, a GPT-NeoX checkpoint, token shards."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from coolbits.data.shards import write_shard

VOCABULARY = 96


def correlated_layer(outputs: int, inputs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight [outputs, inputs] and the Hessian of correlated inputs with unequal variances."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64) / inputs**0.5
    gains = torch.exp(torch.randn(inputs, generator=generator, dtype=torch.float64))
    vectors = torch.randn(8 * inputs, inputs, generator=generator, dtype=torch.float64) @ mixing * gains
    return torch.randn(outputs, inputs, generator=generator), 2 * vectors.T @ vectors / len(vectors)


@pytest.fixture
def layer() -> Callable[[int, int, int], tuple[torch.Tensor, torch.Tensor]]:
    return correlated_layer


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def checkpoint(model: PreTrainedModel, tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text("{}")
    (directory / "state.json").write_text("{}")
    return directory


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", tokens=4096)


def write_shards(directory: Path, tokens: int) -> Path:
    """Write `tokens` random training tokens as an artifact of the shards stage would hold them."""
    directory.mkdir(parents=True)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, tokens)
    header = write_shard(directory / "train-00000.bin", [ids], VOCABULARY)
    entry = {"file": "train-00000.bin", "tokens": tokens, "sha256": header.digest}
    index = {"train": [entry], "validation": [], "vocabulary_size": VOCABULARY, "end_of_text_id": 0}
    (directory / "index.json").write_text(json.dumps(index))
    return directory
