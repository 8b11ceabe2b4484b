import math
from collections.abc import Callable

import pytest
import torch
from transformers import GPTNeoXPreTrainedModel, PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.build import build_config, build_model, outline_model
from coolbits.models.presets import preset
from coolbits.study.recipes.training import Model

ARCHITECTURES = ["micro-neox", "micro-llama", "micro-olmo2", "micro-qwen3", "micro-gpt2"]
RECIPE = preset("micro-neox", 96, 32)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_depend_on_the_seed_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    first = build_model(RECIPE, seed=7)
    torch.manual_seed(2)
    assert equal(first, build_model(RECIPE, seed=7))
    assert not equal(first, build_model(RECIPE, seed=8))


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    build_model(RECIPE, seed=7)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_is_float32_trainable_and_scores_tokens(name: str) -> None:
    model = build_model(preset(name, 96, 32), seed=0)
    assert model.training and {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(input_ids=torch.zeros(2, 32, dtype=torch.long)).logits.shape == (2, 32, 96)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_outline_has_every_parameter_and_no_storage(name: str) -> None:
    outline, model = outline_model(preset(name, 96, 32)), build_model(preset(name, 96, 32), seed=0)
    assert {key: value.shape for key, value in outline.named_parameters()} == {
        key: value.shape for key, value in model.named_parameters()
    }
    assert all(parameter.is_meta for parameter in outline.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fresh_model_knows_nothing_but_the_size_of_its_vocabulary(name: str) -> None:
    model = build_model(preset(name, 96, 32), seed=0)
    tokens = torch.randint(0, 96, (4, 32), generator=torch.Generator().manual_seed(0))
    assert model(input_ids=tokens, labels=tokens).loss.item() == pytest.approx(math.log(96), abs=0.2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_is_dropped_and_no_cache_is_kept(name: str) -> None:
    model = build_model(preset(name, 96, 32), seed=0)
    tokens = torch.arange(32)[None]
    first, second = model(input_ids=tokens), model(input_ids=tokens)
    assert torch.equal(first.logits, second.logits) and first.past_key_values is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_token_of_another_vocabulary_is_named(name: str) -> None:
    config = build_config(preset(name, 96, 32))
    assert config.bos_token_id is None and config.eos_token_id is None and config.pad_token_id is None


def test_attention_is_that_of_pytorch() -> None:
    assert build_model(RECIPE, seed=0).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("make", [lambda recipe: build_model(recipe, seed=0), outline_model], ids=["build", "outline"])
def test_attention_is_eager_where_the_library_has_no_other(
    make: Callable[[Model], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GPTNeoXPreTrainedModel, "_supports_sdpa", False)
    assert make(RECIPE).config._attn_implementation == "eager"


class TestErrors:
    def test_an_unknown_key_is_answered_with_those_there_are(self) -> None:
        with pytest.raises(
            CoolbitsError, match=r"model\.config\.hidden is not a key of gpt_neox; known are .*hidden_size"
        ):
            build_config(preset("micro-neox", 96, 32, hidden=64))

    def test_dropout_is_refused(self) -> None:
        with pytest.raises(CoolbitsError, match=r"hidden_dropout is 0\.1; models are trained without dropout"):
            build_config(preset("micro-neox", 96, 32, hidden_dropout=0.1))

    def test_a_width_that_the_heads_do_not_divide_is_refused(self) -> None:
        with pytest.raises(CoolbitsError, match="must be a multiple of the 5 attention heads"):
            build_config(preset("micro-neox", 96, 32, num_attention_heads=5))

    def test_a_value_of_the_wrong_type_is_refused_in_one_sentence(self) -> None:
        with pytest.raises(CoolbitsError, match=r"model\.config of llama is refused: .*rms_norm_eps") as caught:
            build_config(preset("micro-llama", 96, 32, rms_norm_eps="small"))
        assert "\n" not in str(caught.value)

    def test_a_missing_size_is_refused(self) -> None:
        with pytest.raises(CoolbitsError, match=r"model\.config\.hidden_size: missing in olmo2"):
            build_model(Model(architecture="olmo2", config={}), seed=0)
