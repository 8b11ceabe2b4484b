"""The output head: where it is, and what untying it changes."""

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.models.build import build_model
from coolbits.models.head import is_tied, output_head, untie_head
from coolbits.models.presets import preset
from coolbits.models.quantized import QuantizedModel, apply_model
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import Grid

TIED = {"micro-gpt2": True, "micro-llama": False, "micro-neox": False, "micro-olmo2": False, "micro-qwen3": False}
TOKENS = torch.arange(24).reshape(2, 12)


def build(name: str) -> PreTrainedModel:
    return build_model(preset(name, 96, 32), seed=0).eval()


@pytest.fixture
def tied() -> PreTrainedModel:
    return build("micro-gpt2")


@pytest.mark.parametrize(("name", "is_one"), TIED.items(), ids=TIED)
def test_the_head_is_found_by_name_and_known_to_be_tied_or_not(name: str, is_one: bool) -> None:
    model = build(name)
    found, head = output_head(model) or ("", None)
    assert (found, head) == ("lm_head", model.get_output_embeddings())
    assert is_tied(model) is is_one


def test_a_head_that_is_no_linear_layer_is_none(tied: PreTrainedModel) -> None:
    tied.lm_head = nn.Sequential(tied.lm_head)
    assert output_head(tied) is None
    assert not is_tied(tied)


def test_an_untied_head_has_the_same_weight_of_its_own(tied: PreTrainedModel) -> None:
    with torch.inference_mode():
        before = tied(input_ids=TOKENS).logits
    untie_head(tied, {"lm_head"})
    assert not is_tied(tied)
    assert tied.config.tie_word_embeddings is False
    assert torch.equal(tied.lm_head.weight, tied.get_input_embeddings().weight)
    with torch.inference_mode():
        assert torch.equal(tied(input_ids=TOKENS).logits, before)


def test_a_head_that_is_not_to_change_stays_tied(tied: PreTrainedModel) -> None:
    untie_head(tied, {"transformer.h.0.attn.c_attn"})
    assert is_tied(tied)
    assert tied.config.tie_word_embeddings is True


def test_a_quantized_head_leaves_the_embedding_as_it_is_for_good(tied: PreTrainedModel) -> None:
    embedding = tied.get_input_embeddings().weight.detach().clone()
    layer = round_to_nearest(tied.lm_head.weight.detach(), Grid(bits=3, group_size=16))
    apply_model(tied, QuantizedModel({"lm_head": layer}))
    tied.tie_weights()  # as lm-eval does with every model that it is given
    assert torch.equal(tied.lm_head.weight, layer.weight())
    assert torch.equal(tied.get_input_embeddings().weight, embedding)
