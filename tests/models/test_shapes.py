import pytest
import torch

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.build import build_model
from coolbits.models.presets import preset
from coolbits.models.shapes import check_fits, shape_of
from coolbits.study.recipes.training import Model


def test_sizes_have_one_set_of_names_for_all_architectures() -> None:
    neox, gpt2 = shape_of(preset("micro-neox", 96, 32)), shape_of(preset("micro-gpt2", 96, 32))
    assert (neox.width, neox.layers, neox.heads, neox.inner_width, neox.positions) == (64, 4, 2, 256, 32)
    assert (gpt2.width, gpt2.layers, gpt2.heads, gpt2.inner_width, gpt2.positions) == (64, 4, 4, 256, 32)
    assert gpt2.tied and not neox.tied


def test_gpt2_has_an_mlp_of_four_times_the_width_unless_told() -> None:
    assert shape_of(preset("micro-gpt2", 96, 32, n_inner=None)).inner_width == 256


def test_qwen3_heads_are_as_wide_as_it_says() -> None:
    assert shape_of(preset("micro-qwen3", 96, 32, head_dim=32)).head_width == 32


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(CoolbitsError, match="hidden_size: 65 in gpt_neox; it must be a multiple of the 2 attention"):
        shape_of(preset("micro-neox", 96, 32, hidden_size=65))


def test_heads_that_the_key_value_heads_do_not_divide_are_refused() -> None:
    with pytest.raises(CoolbitsError, match=r"num_attention_heads: 4 in llama; .* the 3 key-value heads"):
        shape_of(preset("micro-llama", 96, 32, num_key_value_heads=3))


@pytest.mark.parametrize(("value", "found"), [("64", "'64'"), (0, "0"), (True, "True"), (6.5, "6.5")])
def test_a_size_that_is_no_positive_integer_is_refused(value: object, found: str) -> None:
    with pytest.raises(CoolbitsError, match=f"hidden_size: {found} in llama; give a positive integer"):
        shape_of(preset("micro-llama", 96, 32, hidden_size=value))


def test_a_missing_size_is_named_as_the_library_names_it() -> None:
    with pytest.raises(CoolbitsError, match=r"model\.config\.n_embd: missing in gpt2"):
        shape_of(Model(architecture="gpt2", config={"n_head": 4}))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *(("micro-llama", {"head_dim": width}) for width in (3, 4, 5, 6)),
        *(("micro-neox", {"hidden_size": 2 * width, "intermediate_size": 64}) for width in (4, 8, 20, 24)),
        ("micro-neox", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 2.0}}),
        ("micro-olmo2", {"hidden_size": 20}),
        ("micro-gpt2", {"n_embd": 20}),
    ],
)
def test_heads_are_refused_that_the_library_could_not_rotate(name: str, sizes: dict[str, int]) -> None:
    model = preset(name, 96, 32, **sizes)
    try:
        build_model(model, seed=0)(input_ids=torch.zeros(1, 4, dtype=torch.long))
    except (CoolbitsError, RuntimeError):
        with pytest.raises(
            CoolbitsError,
            match=r"model\.config(: .* rotates \d+ inputs of a head, in pairs; allowed|\.head_dim: \d+ .* be even)",
        ):
            check_fits(model, 96, 32)
    else:
        check_fits(model, 96, 32)


@pytest.mark.parametrize(("width", "rope"), [(1, {}), (2, {"rope_parameters": None})], ids=["preset", "library"])
def test_heads_too_narrow_to_know_where_they_are_are_refused(width: int, rope: dict[str, None]) -> None:
    with pytest.raises(CoolbitsError, match=f"rotates 0 inputs of a head, in pairs; allowed are 2 to {width}: change"):
        check_fits(preset("micro-neox", 96, 32, hidden_size=2 * width, **rope), 96, 32)


@pytest.mark.parametrize(("vocabulary", "length", "name"), [(97, 32, "vocab_size"), (96, 33, "n_positions")])
def test_a_model_too_small_for_tokenizer_or_sequence_is_refused(vocabulary: int, length: int, name: str) -> None:
    with pytest.raises(CoolbitsError, match=rf"model\.config\.{name}: \d+ in gpt2; it must be at least the \d+ "):
        check_fits(preset("micro-gpt2", 96, 32), vocabulary, length)
