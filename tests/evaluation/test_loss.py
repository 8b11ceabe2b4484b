"""Held-out loss against transformers' own loss in float64, and the bookkeeping of windows and documents."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    XGLMConfig,
    XGLMForCausalLM,
)

from coolbits.artifacts.errors import CoolbitsError
from coolbits.data.shards import TokenStream
from coolbits.evaluation import loss
from coolbits.evaluation.loss import document_losses, document_numbers, summarize, window_starts
from coolbits.study.recipes.evaluation import Loss

END = 0
SMALL = Loss(windows=7, sequence_length=16, batch_size=3)


def stream_of(tokens: np.ndarray) -> TokenStream:
    """Return a stream of two shards, cut at an odd place."""
    cut = len(tokens) // 3
    shards = (tokens[:cut].astype(np.uint16), tokens[cut:].astype(np.uint16))
    return TokenStream(shards, (0, cut, len(tokens)), 300, END)


@pytest.fixture(scope="module")
def stream() -> TokenStream:
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, 300, 400)
    tokens[generator.choice(400, 40, replace=False)] = END
    return stream_of(tokens)


def test_equals_the_loss_of_transformers_in_float64(tiny_model, stream):
    model, oracle = tiny_model(), tiny_model().double()
    starts = window_starts(stream.tokens, SMALL.windows, SMALL.sequence_length)
    windows = [torch.from_numpy(stream.read(at, at + 17).astype(np.int64))[None] for at in starts]
    with torch.no_grad():
        expected = np.mean([oracle(input_ids=window, labels=window).loss.item() for window in windows])
    losses = document_losses(model, stream, SMALL)
    assert losses["nats"].sum() / losses["tokens"].sum() == pytest.approx(expected, rel=1e-6)


def test_sums_are_those_of_the_document_a_token_lies_in(tiny_model, stream):
    model, expected = tiny_model().double(), {}
    tokens = stream.read(0, stream.tokens).astype(np.int64)
    for start in window_starts(stream.tokens, SMALL.windows, SMALL.sequence_length):
        window = torch.from_numpy(tokens[start : start + 17])
        with torch.no_grad():
            log_probabilities = model(input_ids=window[None, :-1]).logits[0].log_softmax(-1)
        for place in range(16):
            document = int((tokens[: start + 1 + place] == END).sum())
            count, nats = expected.get(document, (0, 0.0))
            expected[document] = (count + 1, nats - log_probabilities[place, window[place + 1]].item())
    losses = document_losses(tiny_model(), stream, SMALL)
    assert len(expected) > SMALL.windows  # documents end within windows, not between them alone
    assert losses["document"].tolist() == sorted(expected)
    assert losses["tokens"].tolist() == [expected[document][0] for document in sorted(expected)]
    assert losses["nats"].to_numpy() == pytest.approx([expected[each][1] for each in sorted(expected)], rel=1e-5)
    assert losses["tokens"].sum() == 7 * 16


def test_batches_do_not_change_the_result(tiny_model, stream):
    one = document_losses(tiny_model(), stream, SMALL.model_copy(update={"batch_size": 1}))
    all_at_once = document_losses(tiny_model(), stream, SMALL.model_copy(update={"batch_size": 64}))
    assert one["nats"].to_numpy() == pytest.approx(all_at_once["nats"].to_numpy(), rel=1e-5)


def test_the_same_model_gives_the_same_bits(tiny_model, stream):
    assert document_losses(tiny_model(), stream, SMALL).equals(document_losses(tiny_model(), stream, SMALL))


class Spy(torch.nn.Module):
    """Answers with constant logits and remembers what it was asked."""

    def __init__(self, fill: float = 0.0) -> None:
        super().__init__()
        self.fill = torch.nn.Parameter(torch.tensor(fill))
        self.seen: list[torch.Tensor] = []

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        self.seen.append(input_ids.clone())
        return SimpleNamespace(logits=self.fill.expand(*input_ids.shape, 300))


def test_every_model_sees_the_same_batches(stream):
    base, quantized = Spy(0.0), Spy(1.0)
    document_losses(base, stream, SMALL)
    document_losses(quantized, stream, SMALL)
    assert all(torch.equal(one, other) for one, other in zip(base.seen, quantized.seen, strict=True))
    assert [len(batch) for batch in base.seen] == [3, 3, 1]


def test_a_model_without_opinion_loses_the_log_of_the_vocabulary(stream):
    summary = summarize(document_losses(Spy(), stream, SMALL), bytes_per_token=2.0)
    assert summary["loss"] == pytest.approx(math.log(300), rel=1e-6)
    assert summary["bits_per_byte"] == pytest.approx(math.log2(300) / 2)
    assert summary["tokens"] == 112
    assert "non_finite" not in summary


def test_no_unit_is_dropped_out_of_a_model_that_was_training(stream):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SIZES, n_positions=16, resid_pdrop=0.5))
    trained, evaluated = (document_losses(model.train(mode), stream, SMALL) for mode in (True, False))
    assert trained.equals(evaluated)


@pytest.mark.parametrize("fill", [math.nan, math.inf])
def test_a_broken_model_is_recorded_not_raised(stream, fill):
    losses = document_losses(Spy(fill), stream, SMALL)
    assert not np.isfinite(losses["nats"]).any()
    assert summarize(losses, 2.0) == {
        "loss": None,
        "tokens": 112,
        "documents": len(losses),
        "bits_per_byte": None,
        "non_finite": True,
    }


def test_softmax_is_float32_for_bfloat16_weights(tiny_model, stream):
    model = tiny_model().bfloat16()
    window = torch.from_numpy(stream.read(0, 17).astype(np.int64))[None]
    with torch.no_grad():
        logits = model(input_ids=window[:, :-1]).logits.double()
    expected = -logits.log_softmax(-1).gather(-1, window[:, 1:, None]).sum().item()
    losses = document_losses(model, stream_of(window[0].numpy()), SMALL)
    assert losses["nats"].sum() == pytest.approx(expected, rel=1e-6)


def test_a_corpus_shorter_than_a_window_is_refused(tiny_model):
    with pytest.raises(CoolbitsError, match="sequence_length: found 16, but the corpus has 16 validation tokens"):
        document_losses(tiny_model(), stream_of(np.ones(16, dtype=int)), SMALL)


SIZES = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
XGLM = {"vocab_size": 300, "d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 16}


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(**SIZES, n_positions=16)), True),
        (
            lambda: OPTForCausalLM(OPTConfig(**SIZES, word_embed_proj_dim=16, ffn_dim=16, max_position_embeddings=16)),
            True,
        ),
        (lambda: MptForCausalLM(MptConfig(vocab_size=300, d_model=16, n_layers=1, n_heads=2, max_seq_len=16)), True),
        (lambda: GPTJForCausalLM(GPTJConfig(**SIZES, n_positions=16, rotary_dim=4)), True),
        (lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, intermediate_size=16, max_position_embeddings=16)), False),
        (lambda: XGLMForCausalLM(XGLMConfig(**XGLM, max_position_embeddings=16)), False),
    ],
    ids=["gpt2", "opt", "mpt", "a table of rotations", "rotations", "a table that grows"],
)
def test_windows_longer_than_the_positions_that_a_model_has_are_refused(stream, model, ends):
    made = model().eval()
    assert document_losses(made, stream, SMALL)["nats"].sum() > 0
    longer = SMALL.model_copy(update={"sequence_length": 17})
    with pytest.raises(CoolbitsError, match="found 17, but the model has no more than 16") if ends else nullcontext():
        document_losses(made, stream, longer)


@given(tokens=st.integers(2, 5000), windows=st.integers(1, 60), length=st.integers(1, 80))
def test_windows_are_spread_evenly_and_never_overlap(tokens, windows, length):
    available = (tokens - 1) // length
    if available == 0:
        with pytest.raises(CoolbitsError):
            window_starts(tokens, windows, length)
        return
    starts = window_starts(tokens, windows, length)
    gaps = np.diff(starts)
    assert len(starts) == min(windows, available)
    assert starts[0] == 0
    assert starts[-1] + length + 1 <= tokens
    assert (gaps >= length).all()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= length
    if windows >= available:
        assert starts.tolist() == [length * place for place in range(available)]


@given(
    tokens=st.lists(st.integers(0, 2), min_size=2, max_size=60),
    piece=st.integers(1, 10),
    data=st.data(),
)
def test_documents_are_counted_by_their_ends(tokens, piece, data):
    positions = data.draw(st.lists(st.integers(1, len(tokens) - 1), min_size=1, max_size=10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss, "_TOKENS_AT_ONCE", piece)
        found = document_numbers(stream_of(np.array(tokens)), np.array(positions))
    assert found.tolist() == [tokens[:position].count(END) for position in positions]
