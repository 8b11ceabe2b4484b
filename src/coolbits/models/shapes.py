"""The sizes of a model recipe, checked, under one set of names for all architectures. Needs no torch."""

from dataclasses import dataclass

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.training import Model

GPT2_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder: `width` of the residual stream, `inner_width` of the MLP, `head_width` of one head.

    `gated` architectures (Llama and after) have RMSNorm and a third matrix in the MLP; the others LayerNorm.
    `attention_bias` and `mlp_bias` say whether the linear layers of a block have biases.
    """

    vocabulary: int
    positions: int
    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_width: int
    inner_width: int
    tied: bool
    gated: bool
    attention_bias: bool
    mlp_bias: bool


def shape_of(model: Model) -> Shape:
    """Return the sizes of `model`; what a recipe may leave out takes the library's default.

    Raises:
        CoolbitsError: if a size is missing or not a positive integer, or if heads do not divide what they share.
    """
    architecture = model.architecture
    gated = architecture not in ("gpt_neox", "gpt2")
    width, heads = _size(model, "hidden_size"), _size(model, "num_attention_heads")
    key_value_heads = _size(model, "num_key_value_heads", 32 if architecture == "qwen3" else heads) if gated else heads
    if architecture != "qwen3":
        _require_multiple(model, "hidden_size", width, heads, "attention heads")
    _require_multiple(model, "num_attention_heads", heads, key_value_heads, "key-value heads")
    head_width = width // heads
    if architecture in ("llama", "qwen3"):
        head_width = _size(model, "head_dim", 128 if architecture == "qwen3" else head_width)
    return Shape(
        vocabulary=_size(model, "vocab_size"),
        positions=_size(model, "max_position_embeddings"),
        layers=_size(model, "num_hidden_layers"),
        width=width,
        heads=heads,
        key_value_heads=key_value_heads,
        head_width=head_width,
        inner_width=_size(model, "intermediate_size", 4 * width if architecture == "gpt2" else None),
        tied=bool(model.config.get("tie_word_embeddings", architecture == "gpt2")),
        gated=gated,
        attention_bias=architecture == "gpt2" or bool(model.config.get("attention_bias", not gated)),
        mlp_bias=not gated or (architecture == "llama" and bool(model.config.get("mlp_bias", False))),
    )


def check_fits(model: Model, vocabulary_size: int, sequence_length: int) -> None:
    """Refuse a model with too few rows for a tokenizer, too few positions for a sequence, or heads it cannot rotate.

    Raises:
        CoolbitsError: as `shape_of`, and naming the argument that is too small or odd.
    """
    shape = shape_of(model)
    for key, size, needed, what in (
        ("vocab_size", shape.vocabulary, vocabulary_size, "rows that data.tokenizer needs"),
        ("max_position_embeddings", shape.positions, sequence_length, "tokens of a sequence"),
    ):
        if size < needed:
            name = _name(model, key)
            raise CoolbitsError(
                f"model.config.{name}: {size} in {model.architecture}; it must be at least the {needed} {what}"
            )
    if model.architecture != "gpt2":
        rope = model.config.get("rope_parameters")
        default = 0.25 if model.architecture == "gpt_neox" else 1.0
        share = rope.get("partial_rotary_factor", default) if isinstance(rope, dict) else default
        rotated = int(shape.head_width * share) if isinstance(share, int | float) else 0
        rotated += rotated % 2
        if model.config.get("head_dim") is not None and rotated > shape.head_width:
            raise CoolbitsError(
                f"model.config.head_dim: {shape.head_width} in {model.architecture}; it must be even, as a head's "
                "inputs are rotated in pairs"
            )
        if not 2 <= rotated <= shape.head_width:
            raise CoolbitsError(
                f"model.config: {model.architecture} rotates {rotated} inputs of a head, in pairs; allowed are 2 to "
                f"{shape.head_width}: change hidden_size, the heads or rope_parameters"
            )


def _name(model: Model, key: str) -> str:
    return GPT2_NAMES.get(key, key) if model.architecture == "gpt2" else key


def _size(model: Model, key: str, default: int | None = None) -> int:
    name = _name(model, key)
    value = model.config.get(name)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        found = "missing" if value is None else repr(value)
        raise CoolbitsError(f"model.config.{name}: {found} in {model.architecture}; give a positive integer")
    return value


def _require_multiple(model: Model, key: str, value: int, divisor: int, what: str) -> None:
    if value % divisor:
        name = _name(model, key)
        raise CoolbitsError(
            f"model.config.{name}: {value} in {model.architecture}; it must be a multiple of the {divisor} {what}"
        )
