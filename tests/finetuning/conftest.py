"""A tokenizer, a tiny model and made conversations, and a results folder in which fine-tunings run by real jobs."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node, Ref, make_node
from coolbits.artifacts.store import Store
from coolbits.finetuning.encoding import Encoder
from coolbits.finetuning.examples import write_examples
from coolbits.finetuning.stage import run
from coolbits.finetuning.templates import chat_template
from coolbits.models.build import build_model
from coolbits.models.files import save_model
from coolbits.study.execution import Execution
from coolbits.study.recipes.finetuning import Finetuned
from coolbits.study.recipes.training import AdamW, Cosine, Divergence, Model

torch.set_num_threads(1)

LENGTH = 32
CODE = Slice("coolbits.finetuning.stage", {"coolbits.finetuning.stage": "one"})
_WORDS = ["cool", "bits", "warm", "grid", "rate", "model", "falls", "decays"]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 entries, whose <|endoftext|> begins and ends documents."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([f"Question: what is {word}\nAnswer: {word}" for word in _WORDS], trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end, pad_token=end)


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    """A conversation of (role, content)."""
    return [{"role": role, "content": content} for role, content in turns]


def made_conversations(count: int, seed: int = 0) -> list[list[dict[str, str]]]:
    """Questions whose answer is their last word."""
    choose = random.Random(seed)
    asked = [choose.choices(_WORDS, k=choose.randint(1, 3)) for _ in range(count)]
    return [chat(("user", f"what is {' '.join(words)}"), ("assistant", words[-1])) for words in asked]


def recipe(**changes: Any) -> Finetuned:
    """A recipe of ten updates, changed as asked."""
    defaults = {
        "optimizer": AdamW(weight_decay=0.0),
        "schedule": Cosine(warmup_steps=1, total_steps=10),
        "peak_lr": 0.01,
        "seed": 0,
        "steps": 10,
        "batch_examples": 8,
        "validate_steps": 4,
        "precision": "float32",
        "clip_norm": 1.0,
        "divergence": Divergence(),
        "log_steps": 3,
    }
    return Finetuned(**defaults | changes)


class Lab:
    """A results folder with a start and conversations."""

    def __init__(self, root: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        self.store = Store(root, CODE)
        self._tokenizer = tokenizer
        self.start = self._made("checkpoint", self._write_model)
        self.conversations = self._made("conversations", self._write_conversations)

    def _made(self, kind: str, build: Callable[[Path], dict[str, Any]], label: str = "made") -> Ref:
        node = make_node(kind, label, {"label": label}, {})
        self.store.ensure(node, build)
        return node.ref

    def _write_model(self, out: Path) -> dict[str, Any]:
        config = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config |= {"intermediate_size": 64, "max_position_embeddings": LENGTH}
        folder = self.store.root / "tokenizer" / "made"
        self._tokenizer.save_pretrained(folder)
        save_model(build_model(Model(architecture="gpt_neox", config=config), 0), folder, out)
        return {"outcome": "complete"}

    def _write_conversations(self, out: Path) -> dict[str, Any]:
        encoder = Encoder(self._tokenizer, chat_template("plain", None), "last", LENGTH)
        for split, count, seed in (("train", 77, 0), ("validation", 20, 1)):
            examples = [encoder.encode(messages) for messages in made_conversations(count, seed)]
            write_examples([example for example in examples if example], split, out)
        (out / "chat_template.jinja").write_text(encoder.template)
        return {}

    def diverged(self) -> Ref:
        """A checkpoint of a trajectory that diverged."""
        return self._made("checkpoint", lambda out: {"outcome": "diverged", "diverged_step": 7}, "diverged")

    def node(self, recipe: Finetuned, start: Ref | None = None) -> Node:
        """The node of a fine-tuning."""
        return make_node(
            "finetuned", "tiny", recipe.identity(), {"start": start or self.start, "conversations": self.conversations}
        )

    def tune(self, node: Node, **execution: Any) -> Path:
        """Run the job of a fine-tuning; return its directory."""
        run(Job("finetuned", "test", (node,), Execution(device="cpu", **execution).identity()), self.store)
        return self.store.directory(node)


@pytest.fixture
def lab(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Lab:
    return Lab(tmp_path / "results", tokenizer)


@pytest.fixture
def other_lab(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Lab:
    """A second results folder: what is made here shares nothing with the first."""
    return Lab(tmp_path / "elsewhere", tokenizer)


@pytest.fixture
def finetuned() -> Callable[..., Finetuned]:
    """A function that gives the recipe of a tiny fine-tuning, changed as asked."""
    return recipe


@pytest.fixture
def conversation() -> Callable[..., list[dict[str, str]]]:
    """A function that gives a conversation of (role, content)."""
    return chat
