"""Calibration on documents and on random tokens; and that padding reaches no Hessian."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.hashing import file_digest
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import MANIFEST, read_manifest
from coolbits.artifacts.node import make_node
from coolbits.artifacts.store import Store
from coolbits.data.formats import Row
from coolbits.data.hub import Opened
from coolbits.data.sources import open_documents
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.ptq import calibration_set, tracing
from coolbits.ptq.calibration import gather_hessian, gather_hessians
from coolbits.ptq.calibration_set import build_calibration
from coolbits.ptq.documents import draw_tokens, first_documents
from coolbits.ptq.tokens import Tokens, read_tokens
from coolbits.ptq.tracing import trace_model
from coolbits.study.recipes.calibration import CalibrationSet, Documents, RandomTokens
from coolbits.study.recipes.data import FileSource, HubSource

WORDS = ["<s>", "<end>", *(f"w{number}" for number in range(94))]
TEXTS = ["w0 w1 w2 w3 w4", "  \n", "w5", "", "w6 w7 w8", "w9 w10"]
Write = Callable[[list[str]], tuple[FileSource, list[Path]]]


def word_tokenizer(leading: bool = False) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 96 words, the first two special; `leading`: it begins every text with `<s>`, as Llama's."""
    backend = Backend(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if leading:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<end>")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes texts as JSON lines, and gives the source that names the file, and where it lies."""

    def written(texts: list[str]) -> tuple[FileSource, list[Path]]:
        path = tmp_path / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return FileSource(names=(path.name,), sha256=(file_digest(path),)), [path]

    return written


def documents(write: Write, leading: bool = False, **knobs: Any) -> Tokens:
    source, files = write(TEXTS)
    recipe = Documents(kind="documents", source=source, **knobs)
    return first_documents(word_tokenizer(leading), recipe, open_documents(source, files).items)


def test_each_document_is_a_sequence_cut_and_padded_on_the_right(write: Write) -> None:
    tokens = documents(write, sequences=3, sequence_length=4)
    assert tokens.tokens.tolist() == [[2, 3, 4, 5], [7, 0, 0, 0], [8, 9, 10, 0]]
    assert tokens.lengths.tolist() == [4, 1, 3]
    assert tokens.count == 8 and not tokens.whole


def test_the_first_documents_are_taken_and_blank_ones_do_not_count(write: Write) -> None:
    assert documents(write, sequences=2, sequence_length=8).lengths.tolist() == [5, 1]
    with pytest.raises(CoolbitsError, match="5 documents are wanted, the files source has 4 that are not blank"):
        documents(write, sequences=5, sequence_length=8)


def test_a_document_begins_as_the_tokenizer_begins_a_text_and_does_not_end(write: Write) -> None:
    tokens = documents(write, leading=True, sequences=2, sequence_length=4)
    assert tokens.tokens.tolist() == [[0, 2, 3, 4], [0, 7, 0, 0]]
    assert tokens.lengths.tolist() == [4, 2]


def test_a_file_that_changed_is_refused(write: Write, tmp_path: Path) -> None:
    source, files = write(TEXTS)
    files[0].write_text(json.dumps({"text": "w1"}))
    with pytest.raises(CoolbitsError, match=r"texts\.jsonl: its SHA-256 is"):
        recipe = CalibrationSet(calibration=Documents(kind="documents", source=source, sequences=1))
        build_calibration(recipe, {}, tmp_path, files)


def test_random_tokens_are_even_over_all_but_the_special_ones() -> None:
    drawn = draw_tokens(word_tokenizer(), RandomTokens(kind="random", sequences=100, sequence_length=94, seed=1))
    counts = torch.bincount(drawn.tokens.flatten(), minlength=96)
    assert drawn.whole and drawn.tokens.shape == (100, 94)
    assert counts[:2].tolist() == [0, 0]
    # 100 each on average: a standard deviation is about 10.
    assert counts[2:].min() > 60 and counts[2:].max() < 140


def test_the_seed_decides_the_random_tokens() -> None:
    """And nothing else does: these numbers may never change, for recipes name them."""
    first, again, other = (
        draw_tokens(word_tokenizer(), RandomTokens(kind="random", sequences=2, sequence_length=4, seed=seed)).tokens
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.tolist() == [[61, 27, 5, 3], [78, 87, 59, 70]]


@pytest.mark.parametrize("kind", ["documents", "random"])
def test_the_stage_makes_both_kinds_from_a_tokenizer(kind: str, write: Write, tmp_path: Path) -> None:
    store = Store(tmp_path / "results", Slice("coolbits.ptq.calibration_set", {}))
    tokenizer = make_node("tokenizer", "words", {}, {})
    store.ensure(tokenizer, lambda out: {"files": len(word_tokenizer().save_pretrained(out))})
    source, files = write(TEXTS)
    shape = {"sequences": 3, "sequence_length": 4}
    recipe = (
        Documents(kind="documents", source=source, **shape)
        if kind == "documents"
        else RandomTokens(kind="random", **shape)
    )
    node = make_node("calibration", "some", CalibrationSet(calibration=recipe).identity(), {"tokenizer": tokenizer.ref})
    job = Job("calibration", "job", (node,), {}, {source.sha256[0]: [str(files[0])]})
    assert calibration_set.run(job, store) == 1
    assert calibration_set.run(job, store) == 0
    made = read_tokens(node.directory(store.root))
    manifest = read_manifest(node.directory(store.root))
    assert manifest.summary == {"outcome": "complete", "sequences": 3, "tokens": made.count}
    assert (node.directory(store.root) / MANIFEST).is_file()


@pytest.mark.parametrize("commit", ["0123456789" * 4, None])
def test_the_commit_of_documents_of_the_hub_is_kept(
    commit: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = iter([Row("row 1", {"text": TEXTS[0]}, 1)])
    monkeypatch.setattr("coolbits.data.sources.open_dataset", lambda _: Opened(1, rows, commit))
    word_tokenizer().save_pretrained(tmp_path / "words")
    recipe = CalibrationSet(calibration=Documents(kind="documents", source=HubSource(id="a/b"), sequences=1))
    summary = build_calibration(recipe, {"tokenizer": tmp_path / "words"}, tmp_path)
    assert summary == {"sequences": 1, "tokens": 5, "commit": commit}


def test_documents_whose_files_no_one_located_are_refused(write: Write, tmp_path: Path) -> None:
    source, _ = write(TEXTS)
    word_tokenizer().save_pretrained(tmp_path / "words")
    recipe = CalibrationSet(calibration=Documents(kind="documents", source=source))
    with pytest.raises(CoolbitsError, match=r"locations\.files: 0 paths for the 1 source files"):
        build_calibration(recipe, {"tokenizer": tmp_path / "words"}, tmp_path)


def opt() -> PreTrainedModel:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=96,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    return OPTForCausalLM(config).eval()


def llama(attention: str | None = None) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


RAGGED = Tokens(
    torch.randint(0, 96, (6, 16), generator=torch.Generator().manual_seed(3)), torch.tensor([12, 1, 7, 16, 3, 9])
)


@pytest.mark.parametrize("architecture", ["gpt-neox", "llama", "opt"])
def test_padded_documents_give_the_hessians_of_documents_one_by_one(architecture: str, model: PreTrainedModel) -> None:
    """Whatever stands in the padding: it is on the right, where attention does not see it, and no Hessian counts it."""
    model = {"gpt-neox": lambda: model, "llama": llama, "opt": opt}[architecture]()
    whole, lengths = RAGGED.tokens, RAGGED.lengths
    alone = [Tokens.of_equal_length(whole[row : row + 1, :length]) for row, length in enumerate(lengths.tolist())]
    found, expected = hessians(model, RAGGED), [hessians(model, tokens) for tokens in alone]
    for name, hessian in found.items():
        mean = sum(length * each[name] for length, each in zip(lengths, expected, strict=True)) / lengths.sum()
        torch.testing.assert_close(hessian, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["gpt-neox", "llama", "opt", "eager", "gemma4"])
def test_a_chunk_runs_no_further_than_its_longest_document(
    architecture: str,
    model: PreTrainedModel,
    gemma4: Callable[[int, int], PreTrainedModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where blocks get a mask (`eager`), or embeddings of the tokens (Gemma 4)."""
    made = {"llama": llama, "opt": opt, "eager": lambda: llama("eager"), "gemma4": lambda: gemma4(2, 0)}
    model = made.get(architecture, lambda: model)()
    together, positions = hessians(model, RAGGED), positions_run(model, RAGGED)
    monkeypatch.setattr(tracing, "CHUNK_TOKENS", 2 * 16)
    in_chunks = hessians(model, RAGGED)
    for name, hessian in together.items():
        torch.testing.assert_close(in_chunks[name], hessian, rtol=1e-5, atol=1e-6)
    assert positions == 6 * 16
    assert positions_run(model, RAGGED) == 2 * 16 + 2 * 9 + 2 * 3
    assert positions_run(model, Tokens.of_equal_length(RAGGED.tokens)) == 6 * 16


def positions_run(model: PreTrainedModel, tokens: Tokens) -> int:
    """Return how many positions run through the first block while its Hessians are gathered."""
    trace = trace_model(model, decoder_blocks(model), decoder_linears(model), tokens)
    block, inputs, sizes = trace.blocks[0], trace.inputs, []
    handle = block.module.register_forward_hook(lambda _block, read, _output: sizes.append(read[0].shape[:2].numel()))
    gather_hessians(block, inputs, {})
    handle.remove()
    return sum(sizes)


def hessians(model: PreTrainedModel, tokens: Tokens) -> dict[str, torch.Tensor]:
    """Return the Hessian of every linear layer; the two ways to gather one agree to the last bit."""
    linears = decoder_linears(model)
    trace = trace_model(model, decoder_blocks(model), linears, tokens)
    inputs, found = trace.inputs, {}
    for block in trace.blocks:
        own = {group[0]: linears[group[0]] for group in block.groups}
        alone = {name: gather_hessian(block, inputs, module) for name, module in own.items()}
        shared, inputs = gather_hessians(block, inputs, own)
        assert all(torch.equal(shared[name], alone[name]) for name in own)
        found |= shared
    return found
