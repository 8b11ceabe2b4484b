"""AWQ's searches against plain loops, and its pass on small models."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    XGLMConfig,
)

from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.files import load_model
from coolbits.models.quantized import QuantizedModel, apply_model
from coolbits.ptq.awq import (
    Scaling,
    candidate_scales,
    clip_shares,
    clipped,
    layer_error,
    search_scales,
    weight_shares,
)
from coolbits.ptq.awq_pass import NO_PRODUCER, SHARED, Made, awq_pass
from coolbits.ptq.checkpoint import build_quantized
from coolbits.ptq.observation import Seen, observe
from coolbits.ptq.pairs import Pair, Producer
from coolbits.ptq.passes import plain_pass
from coolbits.ptq.rtn import round_to_nearest
from coolbits.ptq.search import ALL, Objective, Weighed
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.ptq.tracing import trace_model
from coolbits.study.recipes.methods import AWQ, RTN, Grid
from coolbits.study.recipes.ptq import Quantized

GRID = Grid(bits=3, group_size=16, symmetric=False)
TOKENS = Tokens.of_equal_length(torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(0)))


def recipe(**knobs: object) -> AWQ:
    return AWQ(grid=GRID, **knobs)


def one_to_one(width: int, *readers: str) -> Pair:
    return Pair(Producer("norm", nn.LayerNorm(width)), {reader: torch.arange(width) for reader in readers})


def quantize(model: PreTrainedModel, *recipes: AWQ, tokens: Tokens = TOKENS) -> list[Made]:
    linears = decoder_linears(model)
    trace = trace_model(model, decoder_blocks(model), linears, tokens)
    return awq_pass(model, trace, linears, tokens, recipes, lambda _units: None)


def applied(model: PreTrainedModel, made: Made) -> PreTrainedModel:
    quantized = copy.deepcopy(model)
    apply_model(quantized, QuantizedModel({name: result.layer for name, result in made[0].items()}, made[1]))
    return quantized


def divergence(model: PreTrainedModel, made: Made) -> float:
    quantized = applied(model, made)
    with torch.no_grad():
        wanted, found = (each(TOKENS.tokens).logits.double().log_softmax(-1) for each in (model, quantized))
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


@pytest.fixture
def opt() -> PreTrainedModel:
    """An OPT, whose MLP reads all sequences end to end."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    return OPTForCausalLM(OPTConfig(vocab_size=96, num_attention_heads=2, **sizes)).eval()


@pytest.fixture
def llama() -> PreTrainedModel:
    """A Llama of grouped heads whose norms let every seventh channel stand out."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
            if name.endswith("layernorm.weight"):
                parameter[::7] *= 8
    return model


def test_weight_shares_are_relative_to_the_largest_of_the_group() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, 0.0], [2.0, 1.0, 0.0, 0.0]])
    shares = weight_shares(weight, Grid(bits=3, group_size=2))
    torch.testing.assert_close(shares, torch.tensor([1.25, 1.5, 1.0, 0.0], dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("weighted", [True, False])
def test_scales_follow_activations_and_weights(weighted: bool) -> None:
    pair, generator = one_to_one(32, "a", "b"), torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(8, 32, generator=generator), "b": torch.randn(4, 32, generator=generator)}
    mean = torch.rand(32, generator=generator, dtype=torch.float64) + 0.1
    scalings = candidate_scales(pair, weights, {"a": mean, "b": mean}, recipe(weighted=weighted, steps=5))
    exponents = [None, 0, 1 / 3, 2 / 3, 1] if weighted else [None, 0.25, 0.5, 0.75, 1]
    assert [scaling.exponent for scaling in scalings] == pytest.approx(exponents)
    assert (scalings[0].scales == 1).all()
    share = weight_shares(torch.cat(list(weights.values())), GRID) / 12
    for scaling in scalings[1:]:
        raw = mean**scaling.exponent
        raw = raw / (share ** (1 - scaling.exponent) + 1e-4) if weighted else raw
        expected = raw / (raw.max() * raw.min()) ** 0.5
        torch.testing.assert_close(scaling.scales.double(), expected, rtol=1e-6, atol=0)


def test_inputs_that_are_one_channel_share_its_scale() -> None:
    pair = Pair(Producer("values", nn.Linear(4, 6)), {"out": torch.tensor([1, 1, 3, 3])})
    scaling = candidate_scales(
        pair, {"out": torch.ones(2, 4)}, {"out": torch.tensor([1.0, 3.0, 8.0, 8.0])}, AWQ(grid=Grid(bits=4), steps=3)
    )[-1]
    torch.testing.assert_close(scaling.scales, torch.tensor([1.0, 0.5, 1.0, 2.0, 1.0, 1.0]))
    assert pair.columns("out", scaling.scales).tolist() == pytest.approx([0.5, 0.5, 2, 2])


@pytest.mark.parametrize("search", ["race", "exhaustive"])
def test_a_search_rounds_the_scaled_weights(search: str) -> None:
    """Scaled by 1 to 5, rounded to whole numbers and scaled back, the weight 3.3 comes nearest to itself by 3."""
    candidates = [Scaling(torch.tensor([1.0, 1.0 + index]), float(index)) for index in range(5)]

    def losses(weighed: Weighed, units: torch.Tensor) -> torch.Tensor:
        ((largest, other),) = weighed(ALL)["a"]
        assert largest == 255
        return (other - 3.3).square().expand(len(units), 1)

    settings = AWQ(grid=Grid(bits=8, symmetric=False), search=search)
    objective = Objective((torch.arange(40),), losses, True)
    best = search_scales(one_to_one(2, "a"), {"a": torch.tensor([[255.0, 3.3]])}, candidates, objective, settings)
    assert best is candidates[2]


@pytest.mark.parametrize("name", ["llama", "neox", "opt"])
def test_races_and_exhaustive_searches_agree(name: str, request: pytest.FixtureRequest) -> None:
    (one,), (other,) = (quantize(request.getfixturevalue(name), recipe(search=how)) for how in ("race", "exhaustive"))
    exponents = [{module: result.entry.exponent for module, result in made[0].items()} for made in (one, other)]
    assert exponents[0] == exponents[1]


@pytest.mark.parametrize("search", ["race", "exhaustive"])
def test_a_search_leaves_keys_and_values_that_later_blocks_read(
    search: str, gemma4: Callable[[int, int], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Gemma 4 the last blocks read those of blocks before, which are handed on in a mapping."""
    model, seen = gemma4(4, 2), list[torch.Tensor]()

    def watched(*arguments: Any) -> Seen:
        found = observe(*arguments)
        seen.append(found.outputs[0].hidden)
        return found

    monkeypatch.setattr("coolbits.ptq.awq_pass.observe", watched)
    quantize(model, AWQ(grid=Grid(bits=3, group_size=8, symmetric=False), search=search, clip=False))
    hidden = model(TOKENS.tokens, output_hidden_states=True, use_cache=False).hidden_states
    for found, wanted in zip(seen[:-1], hidden[1:-1], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_module_that_refuses_loose_tokens_is_given_sequences() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 2, "max_position_embeddings": 64}
    model = AutoModelForCausalLM.from_config(XGLMConfig(vocab_size=96, dropout=0.0, **sizes)).eval()
    tokens = Tokens.of_equal_length(torch.randint(4, 96, (24, 20), generator=torch.Generator().manual_seed(0)))
    ((results, _),) = quantize(model, recipe(clip=False), tokens=tokens)
    assert sum(result.entry.method == "awq" for result in results.values()) == 10


def test_a_layer_errs_output_by_output() -> None:
    """As its outputs do on the tokens behind the Hessian; only the outputs that are asked for are rounded."""
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(7, 32, generator=generator), torch.randn(200, 32, generator=generator)
    errors = 0.1 * torch.randn(7, 32, generator=generator)
    objective = layer_error("a", weight, 2 * inputs.T @ inputs / len(inputs))
    units = torch.tensor([5, 0, 2])
    asked: list[torch.Tensor] = []

    def weighed(outputs: torch.Tensor | slice) -> dict[str, torch.Tensor]:
        asked.append(outputs)
        return {"a": (weight + errors)[outputs]}

    expected = 2 * (inputs @ errors.T).square().mean(0)[units, None]
    torch.testing.assert_close(objective.losses(weighed, units).float(), expected)
    assert (objective.units, [each.tolist() for each in asked]) == (7, [[5, 0, 2]])


def test_clip_shares_are_those_of_llm_awq() -> None:
    assert clip_shares(recipe()) == pytest.approx([1 - step / 20 for step in range(10)])


def test_each_group_is_cut_where_its_output_errs_least() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 32, generator=generator) ** 3
    inputs = torch.randn(200, 32, generator=generator) * torch.rand(32, generator=generator)
    hessian = (2 * inputs.T @ inputs / len(inputs)).double()
    cut = clipped(weight, hessian, recipe())
    narrower = 0
    for row in range(3):
        for group in (slice(0, 16), slice(16, 32)):
            own, vectors = weight[row, group], inputs[:, group]
            errors = []
            for share in clip_shares(recipe()):
                limit = share * own.abs().max()
                trial = own.clamp(-limit, limit)
                rounded = round_to_nearest(trial[None], GRID).weight()[0]
                errors.append((float((vectors @ (rounded - own)).square().mean()), limit, trial))
            error, limit, trial = min(errors, key=lambda each: each[0])
            torch.testing.assert_close(cut[row, group], trial)
            narrower += error < errors[0][0]
    assert narrower > 0


@pytest.fixture
def neox(model: PreTrainedModel) -> PreTrainedModel:
    """A GPT-NeoX, attention and MLP side by side, whose norms let every seventh channel stand out."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layernorm.weight"):
                parameter[::7] *= 8
    return model


@pytest.mark.parametrize(
    ("name", "without_producer"), [("llama", set()), ("neox", {"dense_4h_to_h"})], ids=["llama", "gpt-neox"]
)
def test_scales_and_clipping_each_help(name: str, without_producer: set[str], request: pytest.FixtureRequest) -> None:
    outlying = request.getfixturevalue(name)
    both, scaled, clipped_only = quantize(
        outlying, recipe(), recipe(clip=False), recipe(steps=2, weighted=False, largest_exponent=1e-9)
    )
    nearest = plain_pass(decoder_linears(outlying), RTN(grid=GRID), lambda _units: None)
    losses = [divergence(outlying, made) for made in (both, scaled, (nearest, {}))]
    assert all(lower < 0.8 * higher for lower, higher in pairwise(losses))
    assert divergence(outlying, clipped_only) < losses[2]
    for module, result in both[0].items():
        assert result.entry.method == ("clip" if module.rpartition(".")[2] in without_producer else "awq")
        assert result.entry.proxy_loss < result.entry.rtn_proxy_loss


@pytest.mark.parametrize("name", ["llama", "neox"])
@pytest.mark.parametrize("clip", [True, False])
def test_every_weight_is_on_its_grid(name: str, clip: bool, request: pytest.FixtureRequest) -> None:
    """Scaled, divided and clipped, the weights that the model computes with are still levels of their group."""
    outlying = request.getfixturevalue(name)
    (made,) = quantize(outlying, recipe(clip=clip))
    quantized = decoder_linears(applied(outlying, made))
    for module, result in made[0].items():
        layer, groups = result.layer, quantized[module].weight.detach().unflatten(1, (-1, 16))
        steps = groups / layer.scales[..., None] + layer.zeros[..., None]
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-5)
        assert 0 <= int(steps.round().min()) <= int(steps.round().max()) <= GRID.top


@pytest.mark.parametrize("name", ["llama", "neox"])
def test_quantizing_twice_changes_nothing_where_the_grid_is_found_again(
    name: str, request: pytest.FixtureRequest
) -> None:
    """On an asymmetric grid, weights lose nothing as they are: no scale and no clip beats none.

    Its ends must be among them. Cut on both sides alike, a group may lie half a step short of one.
    """
    outlying = request.getfixturevalue(name)
    (once,) = quantize(outlying, recipe())
    again = applied(outlying, once)
    (twice,) = quantize(again, recipe())
    assert twice[1] == {}
    for module, result in once[0].items():
        first, second = result.layer, twice[0][module].layer
        assert twice[0][module].entry.exponent is None
        groups = first.codes.unflatten(1, (-1, 16))
        spanned = (groups.amin(-1) == 0) & (groups.amax(-1) == GRID.top)  # [outputs, groups]
        kept = spanned.repeat_interleave(16, 1)
        assert float(kept.float().mean()) > 0.9
        assert torch.equal(second.codes[kept], first.codes[kept])
        torch.testing.assert_close(second.weight()[kept], first.weight()[kept], rtol=1e-5, atol=1e-6)


def test_without_loss_of_bits_nothing_but_rounding_is_lost(llama: PreTrainedModel) -> None:
    eight = AWQ(grid=Grid(bits=8, group_size=16, symmetric=False))
    (made,) = quantize(llama, eight)
    assert 0 < divergence(llama, made) < 1e-3
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in made[1]} == {
        "input_layernorm",
        "post_attention_layernorm",
    }


def test_the_model_is_put_back(llama: PreTrainedModel) -> None:
    before = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    quantize(llama, recipe())
    assert all(torch.equal(tensor, before[name]) for name, tensor in llama.state_dict().items())
    assert not any(module._forward_pre_hooks for module in llama.modules())


def test_recipes_together_are_as_each_alone(llama: PreTrainedModel) -> None:
    recipes = [recipe(), AWQ(grid=Grid(bits=4, group_size=8), weighted=False)]
    for together, (alone,) in zip(quantize(llama, *recipes), (quantize(llama, each) for each in recipes), strict=True):
        assert together[0].keys() == alone[0].keys()
        assert all(torch.equal(together[0][name].layer.codes, alone[0][name].layer.codes) for name in alone[0])
        assert all(torch.equal(together[1][name], alone[1][name]) for name in alone[1])


def test_a_ledger_line_measures_what_the_layer_computes(model: PreTrainedModel) -> None:
    """Queries, keys and values are scaled as a reader and divided as a producer; neither is an error."""
    (made,) = quantize(model, recipe(clip=False))
    block, name = "gpt_neox.layers.0", "gpt_neox.layers.0.attention.query_key_value"
    norm, bias = (
        model.get_parameter(path).detach() / made[1][path] for path in (f"{block}.input_layernorm.bias", f"{name}.bias")
    )
    entry, weight = made[0][name].entry, model.get_submodule(name).weight.detach()
    effective = made[0][name].layer.weight() * bias[:, None] / norm
    assert entry.relative_error == pytest.approx(float((effective - weight).norm() / weight.norm()), rel=1e-4)
    with torch.no_grad():
        inputs = model.gpt_neox.layers[0].input_layernorm(model.gpt_neox.embed_in(TOKENS.tokens)).flatten(0, 1)
    loss = 2 * (inputs @ (effective - weight).T).square().sum(-1).mean()
    assert entry.proxy_loss == pytest.approx(float(loss), rel=1e-3)
    assert entry.producer == f"{block}.input_layernorm"
    assert entry.exponent is not None


def test_a_layer_without_a_producer_is_clipped_and_says_so(model: PreTrainedModel) -> None:
    clip, plain = quantize(model, recipe(), recipe(clip=False))
    name = "gpt_neox.layers.0.mlp.dense_4h_to_h"
    for (results, _), method in ((clip, "clip"), (plain, "rtn")):
        entry = results[name].entry
        assert (entry.method, entry.reason, entry.fell_back) == (method, NO_PRODUCER, True)
        assert sum(result.entry.fell_back for result in results.values()) == 2
    assert clip[0][name].entry.proxy_loss < plain[0][name].entry.proxy_loss == plain[0][name].entry.rtn_proxy_loss


def test_shared_channels_can_be_left_alone(llama: PreTrainedModel) -> None:
    (made,) = quantize(llama, recipe(shared_channels=False))
    fallen = {name: result.entry.reason for name, result in made[0].items() if result.entry.fell_back}
    assert fallen == {f"model.layers.{index}.self_attn.o_proj": SHARED for index in range(2)}


def test_queries_and_keys_are_clipped_only_if_asked(llama: PreTrainedModel) -> None:
    kept, cut = quantize(llama, recipe(), recipe(clip_steering=True))
    for name in decoder_linears(llama):
        same = torch.equal(kept[0][name].layer.scales, cut[0][name].layer.scales)
        assert same == (name.rpartition(".")[2] not in ("q_proj", "k_proj"))


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_padding_changes_nothing(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    padded = Tokens(nn.functional.pad(TOKENS.tokens, (0, 7), value=5), TOKENS.lengths)
    (whole,), (cut,) = quantize(model, recipe()), quantize(model, recipe(), tokens=padded)
    for name, result in whole[0].items():
        assert result.entry.exponent == cut[0][name].entry.exponent
        assert (result.layer.codes != cut[0][name].layer.codes).float().mean() < 0.01


def test_a_layer_that_calibration_never_reaches_falls_back(llama: PreTrainedModel) -> None:
    llama.model.layers[0].mlp.idle = nn.Linear(32, 8)
    (made,) = quantize(llama, recipe())
    entry = made[0]["model.layers.0.mlp.idle"].entry
    assert (entry.method, entry.reason) == ("rtn", "no calibration input other than zero")


def test_a_checkpoint_is_quantized_scaled_and_reloaded(checkpoint: Path, tmp_path: Path) -> None:
    calibration, out = tmp_path / "calibration", tmp_path / "quantized"
    calibration.mkdir()
    out.mkdir()
    write_tokens(TOKENS, calibration)
    summary = build_quantized(Quantized(method=recipe(), save_model=True), checkpoint, calibration, out)
    assert summary["fallbacks"] == 2
    ledger = pd.read_parquet(out / "ledger.parquet").set_index("module")
    assert ledger.loc["gpt_neox.layers.1.mlp.dense_h_to_4h", "producer"] == "gpt_neox.layers.1.post_attention_layernorm"
    (made,) = quantize(load_model(checkpoint), recipe())
    reloaded = load_model(out / "model")
    assert len(made[1]) >= 8
    assert all(torch.equal(reloaded.get_parameter(name), value) for name, value in made[1].items())
