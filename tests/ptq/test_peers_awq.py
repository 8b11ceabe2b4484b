"""AWQ against llm-compressor's `AWQModifier`: the same model, tokens, grid and candidates."""

import copy
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.quantized import QuantizedModel, apply_model
from coolbits.ptq.awq_pass import Made, awq_pass
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import trace_model
from coolbits.study.recipes.methods import AWQ, Grid

pytest.importorskip("llmcompressor", reason="llm-compressor is not installed: see envs/peers-ptq.txt")
pytest.importorskip("datasets", reason="datasets is not installed")

RECIPE = AWQ(grid=Grid(bits=4, group_size=64, symmetric=False), search="exhaustive", clip=False, shared_channels=False)
TOKENS = torch.randint(0, 512, (16, 64), generator=torch.Generator().manual_seed(1))


def outlying_llama(key_value_heads: int) -> PreTrainedModel:
    """Return a Llama whose norms let every seventh channel stand out."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
            if name.endswith("layernorm.weight"):
                parameter[::7] *= 6
    return model


def by_coolbits(model: PreTrainedModel) -> tuple[PreTrainedModel, Made]:
    linears, calibration = decoder_linears(model), Tokens.of_equal_length(TOKENS)
    trace = trace_model(model, decoder_blocks(model), linears, calibration)
    (made,) = awq_pass(model, trace, linears, calibration, [RECIPE], lambda _units: None)
    quantized = copy.deepcopy(model)
    apply_model(quantized, QuantizedModel({name: result.layer for name, result in made[0].items()}, made[1]))
    return quantized, made


def by_llm_compressor(model: PreTrainedModel, directory: Path, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    monkeypatch.setattr(IntermediatesCache, "pin_memory", lambda *_, **__: None)  # it asks for a GPU
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 64}
    group = {"targets": ["Linear"], "weights": weights}
    modifiers = [AWQModifier(), QuantizationModifier(config_groups={"group": group}, ignore=["lm_head"])]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0})), pad_token="?")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    rows = {"input_ids": TOKENS.tolist(), "attention_mask": torch.ones_like(TOKENS).tolist()}
    return oneshot(
        model=LlamaForCausalLM.from_pretrained(directory),
        dataset=Dataset.from_dict(rows),
        recipe=modifiers,
        processor=tokenizer,
        max_seq_length=TOKENS.shape[1],
        num_calibration_samples=len(TOKENS),
        shuffle_calibration_samples=False,
    )


def divergence(model: PreTrainedModel, quantized: PreTrainedModel) -> float:
    with torch.no_grad():
        wanted, found = (each(TOKENS).logits.double().log_softmax(-1) for each in (model, quantized))
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


@pytest.mark.parametrize("key_value_heads", [4, 2], ids=["all heads", "grouped heads"])
def test_scales_and_codes_are_those_of_llm_compressor(
    key_value_heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = outlying_llama(key_value_heads)
    ours, (results, _) = by_coolbits(model)
    theirs = by_llm_compressor(model, tmp_path, monkeypatch)
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if name.endswith("layernorm.weight"):
            torch.testing.assert_close(parameter, expected[name], rtol=1e-4, atol=0, msg=name)
    for name, result in results.items():
        layer = theirs.get_submodule(name)
        torch.testing.assert_close(result.layer.scales, layer.weight_scale, rtol=1e-4, atol=0, msg=name)
        assert torch.equal(result.layer.zeros.int() - 8, layer.weight_zero_point.int()), name  # theirs are signed
    loss = divergence(model, theirs)
    assert divergence(model, ours) == pytest.approx(loss, rel=0.01)
    assert loss > 0
