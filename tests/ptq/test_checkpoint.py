from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, OlmoeConfig, OlmoeForCausalLM, PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_linears
from coolbits.models.quantized import apply_quantized, read_quantized
from coolbits.ptq import tracing
from coolbits.ptq.checkpoint import Request, build_quantized, quantize_checkpoint
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.methods import AWQ, GPTQ, RTN, Grid
from coolbits.study.recipes.ptq import Quantized, Rotation

CALIBRATION = Windows(sequences=16, sequence_length=32)


def gptq_recipe(bits: int = 3, **knobs: object) -> GPTQ:
    return GPTQ(grid=Grid(bits=bits, group_size=16), calibration=CALIBRATION, **knobs)


def test_an_artifact_holds_codes_layout_and_ledger(checkpoint: Path, calibration: Path, tmp_path: Path) -> None:
    summary = build_quantized(Quantized(method=gptq_recipe()), checkpoint, calibration, tmp_path)
    assert {"codes.safetensors", "layout.json", "ledger.parquet"} <= {path.name for path in tmp_path.iterdir()}
    ledger = pd.read_parquet(tmp_path / "ledger.parquet")
    assert len(ledger) == summary["modules"] == 8
    assert summary["fallbacks"] == 0
    layers = read_quantized(tmp_path).layers.values()
    weights, inputs = (
        sum(sizes) for sizes in zip(*((each.codes.numel(), each.codes.shape[1]) for each in layers), strict=True)
    )
    # A code, a share of a float32 scale, and the group of each input, which activation order needs.
    assert summary["mean_bits"] == pytest.approx(3 + 32 / 16 + 32 * inputs / weights)
    assert summary["bytes"] * 8 == pytest.approx(summary["mean_bits"] * weights)


def test_a_model_of_which_only_a_part_would_be_quantized_is_refused_before_any_work(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    OlmoeForCausalLM(OlmoeConfig(vocab_size=96, num_experts=4, pad_token_id=None, **sizes)).save_pretrained(tmp_path)
    unread = Request(Quantized(method=gptq_recipe()), tmp_path / "no calibration")
    with pytest.raises(
        CoolbitsError, match=rf"^{tmp_path}: model\.layers\.0\.mlp\.experts\.gate_up_proj, 4 x 128 x 32, "
    ):
        quantize_checkpoint([unread], tmp_path)


@pytest.mark.parametrize("sequential", ["layer", "block", "none"])
def test_requests_give_together_what_they_give_alone(checkpoint: Path, calibration: Path, sequential: str) -> None:
    methods = [
        RTN(grid=Grid(bits=3, group_size=16)),
        gptq_recipe(3, sequential=sequential),
        gptq_recipe(4, sequential=sequential),
        gptq_recipe(3, sequential=sequential, precision="float32"),
        gptq_recipe(3, sequential="none", order="natural"),
    ]
    requests = [Request(Quantized(method=method), calibration) for method in methods]
    for request, together in zip(requests, quantize_checkpoint(requests, checkpoint), strict=True):
        (alone,) = quantize_checkpoint([request], checkpoint)
        assert {name: result.entry for name, result in alone.results.items()} == {
            name: result.entry for name, result in together.results.items()
        }
        for name, result in alone.results.items():
            assert torch.equal(result.layer.weight(), together.results[name].layer.weight())


@pytest.mark.parametrize("rotation", [None, Rotation()], ids=["plain", "rotated"])
@pytest.mark.parametrize("sequential", ["layer", "block", "none"])
def test_float32_loses_next_to_nothing_by_proxy_loss(
    checkpoint: Path, calibration: Path, sequential: str, rotation: Rotation | None
) -> None:
    """On a symmetric grid the largest weight of a group lies half way between two levels, and codes would differ."""
    grid = Grid(bits=3, group_size=16, symmetric=False)
    knobs = {"grid": grid, "sequential": sequential, "calibration": CALIBRATION}
    methods = [GPTQ(precision=precision, **knobs) for precision in ("float64", "float32")]
    recipes = [Quantized(method=method, rotation=rotation) for method in methods]
    exact, rough = quantize_checkpoint([Request(recipe, calibration) for recipe in recipes], checkpoint)
    losses = [
        [entry.proxy_loss for entry in (result.entry for result in made.results.values())] for made in (exact, rough)
    ]
    assert losses[0] != losses[1]
    assert sum(losses[1]) == pytest.approx(sum(losses[0]), rel=0.01)
    for name, result in exact.results.items():
        pair = result.layer.weight(), rough.results[name].layer.weight()
        assert torch.isclose(*pair, rtol=1e-4).float().mean() > 0.98


def test_the_same_recipe_gives_the_same_bytes(checkpoint: Path, calibration: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build_quantized(Quantized(method=gptq_recipe()), checkpoint, calibration, tmp_path / name)
    for file in ("codes.safetensors", "layout.json", "ledger.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_gptq_keeps_the_outputs_closer_than_rounding(
    model: PreTrainedModel, checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    tokens = torch.randint(0, 96, (8, 32), generator=torch.Generator().manual_seed(7))
    errors = {}
    for method in (RTN(grid=Grid(bits=3, group_size=16)), gptq_recipe(), gptq_recipe(sequential="none")):
        build_quantized(Quantized(method=method), checkpoint, calibration, tmp_path)
        quantized = AutoModelForCausalLM.from_pretrained(checkpoint)
        apply_quantized(quantized, tmp_path)
        with torch.no_grad():
            errors[method] = float((model(tokens).logits - quantized(tokens).logits).norm())
    rounding, *others = errors.values()
    assert all(error < rounding for error in others)


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("order", ["natural", "activation", "group-aware"])
def test_no_module_of_a_trained_model_loses_more_than_by_rounding(
    trained: Path, tmp_path: Path, bits: int, order: str
) -> None:
    method = GPTQ(grid=Grid(bits=bits, group_size=32), order=order)
    build_quantized(Quantized(method=method), trained / "model", trained / "calibration", tmp_path)
    ledger = pd.read_parquet(tmp_path / "ledger.parquet")
    assert (ledger["method"] == "gptq").all()
    assert (ledger["proxy_loss"] < ledger["rtn_proxy_loss"]).all()


SHUFFLED = [
    *(gptq_recipe(sequential=sequential) for sequential in ("layer", "block", "none")),
    AWQ(grid=Grid(bits=3, group_size=16, symmetric=False)),
]


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("method", SHUFFLED, ids=["gptq layer", "gptq block", "gptq none", "awq"])
def test_the_order_of_the_calibration_does_not_matter(
    checkpoint: Path, tmp_path: Path, method: GPTQ | AWQ, padded: bool
) -> None:
    """Sums of floats come in another order: proxy losses are equal to nine digits, and no code falls otherwise."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 96, (16, 32), generator=generator)
    lengths = torch.randint(9, 33, (16,), generator=generator) if padded else torch.full((16,), 32)
    rows = torch.randperm(16, generator=generator)
    made = []
    for name, calibration in (("as drawn", Tokens(tokens, lengths)), ("other", Tokens(tokens[rows], lengths[rows]))):
        (tmp_path / name).mkdir()
        write_tokens(calibration, tmp_path / name)
        made += quantize_checkpoint([Request(Quantized(method=method), tmp_path / name)], checkpoint)
    for name, result in made[0].results.items():
        other = made[1].results[name]
        assert torch.equal(other.layer.codes, result.layer.codes)
        assert other.entry.proxy_loss == pytest.approx(result.entry.proxy_loss, rel=1e-9)


IN_CHUNKS = [*SHUFFLED[:-1], AWQ(grid=Grid(bits=3, group_size=16, symmetric=False), clip=False)]


@pytest.mark.parametrize("method", IN_CHUNKS, ids=["gptq layer", "gptq block", "gptq none", "awq"])
def test_how_documents_fall_into_chunks_does_not_matter(
    checkpoint: Path, tmp_path: Path, method: GPTQ | AWQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one are padded to the longest; eight chunks of two each end with their own longest.

    A block's float32 outputs are then equal to rounding. AWQ does not clip here: a group cut at both ends has its zero
    point half way between two codes, where the last bit decides.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 96, (16, 32), generator=generator)
    write_tokens(Tokens(tokens, torch.randint(9, 33, (16,), generator=generator)), tmp_path)
    request = Request(Quantized(method=method), tmp_path)
    (together,) = quantize_checkpoint([request], checkpoint)
    monkeypatch.setattr(tracing, "CHUNK_TOKENS", 2 * 32)
    (in_chunks,) = quantize_checkpoint([request], checkpoint)
    for name, result in together.results.items():
        other = in_chunks.results[name]
        assert torch.equal(other.layer.codes, result.layer.codes)
        assert other.entry.proxy_loss == pytest.approx(result.entry.proxy_loss, rel=1e-6)
        assert other.entry.exponent == result.entry.exponent


def test_a_saved_model_opens_with_transformers_and_has_the_dequantized_weights(
    checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    build_quantized(Quantized(method=gptq_recipe(), save_model=True), checkpoint, calibration, tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    linears = decoder_linears(saved)
    for name, layer in read_quantized(tmp_path).layers.items():
        assert torch.equal(linears[name].weight, layer.weight())
    original = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert torch.equal(saved.get_input_embeddings().weight, original.get_input_embeddings().weight)
    assert torch.equal(saved.get_output_embeddings().weight, original.get_output_embeddings().weight)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "state.json" not in names


def test_a_model_whose_logits_are_not_numbers_is_saved(model, checkpoint, tmp_path):
    with torch.no_grad():
        model.gpt_neox.embed_in.weight.fill_(3e38)
    model.save_pretrained(checkpoint)
    build_quantized(Quantized(method=RTN(grid=Grid(bits=4)), save_model=True), checkpoint, None, tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not torch.isfinite(saved(torch.arange(8)[None]).logits).any()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (RTN(grid=Grid(bits=3, group_size=48)), "48 does not divide the 32 inputs of gpt_neox.layers.0"),
    ],
    ids=["group size"],
)
def test_what_cannot_work_is_refused(checkpoint: Path, calibration: Path, method: GPTQ | RTN, message: str) -> None:
    with pytest.raises(CoolbitsError, match=message):
        quantize_checkpoint([Request(Quantized(method=method), calibration)], checkpoint)


def test_too_few_tokens_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    write_tokens(Tokens.of_equal_length(torch.zeros(1, 32, dtype=torch.long)), tmp_path)
    with pytest.raises(CoolbitsError, match="64 inputs"):
        quantize_checkpoint([Request(Quantized(method=gptq_recipe()), tmp_path)], checkpoint)


def test_gptq_without_a_calibration_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CoolbitsError, match="gptq needs a calibration, none is given"):
        quantize_checkpoint([Request(Quantized(method=gptq_recipe()))], checkpoint)
