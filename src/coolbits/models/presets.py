"""Named models: an architecture and its sizes. Needs no torch, so that planning is quick.

Sources: Pythia (Biderman et al. 2023) as trained in arXiv 2510.06213; the GPT and Llama shapes of the 8-bit Muon group
(table 6 of "Rounding in Preconditioner Space"), whose GPT is read here as GPT-NeoX with rotary positions on the whole
head, one residual branch after the other and untied embeddings, since its norm is not stated; the Llama sizes of the
plainLM code base. The `micro` ones are ours, for two CPU cores.
"""

from typing import Any, Literal, NamedTuple

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.shapes import GPT2_NAMES
from coolbits.study.recipes.training import Model

Architecture = Literal["gpt_neox", "llama", "olmo2", "qwen3", "gpt2"]


class _Preset(NamedTuple):
    architecture: Architecture
    config: dict[str, Any]


def _sizes(layers: int, width: int, heads: int, inner_width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner_width,
    }


def _rotary(fraction: float = 1.0) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": fraction}


def _neox(layers: int, width: int, heads: int, inner_width: int, *, rotary: float, parallel: bool) -> _Preset:
    return _Preset(
        "gpt_neox",
        _sizes(layers, width, heads, inner_width)
        | {"rope_parameters": _rotary(rotary), "use_parallel_residual": parallel, "layer_norm_eps": 1e-5}
        | {"tie_word_embeddings": False},
    )


def _pythia(layers: int, width: int, heads: int, inner_width: int) -> _Preset:
    return _neox(layers, width, heads, inner_width, rotary=0.25, parallel=True)


def _gpt(layers: int, width: int, heads: int, inner_width: int) -> _Preset:
    return _neox(layers, width, heads, inner_width, rotary=1.0, parallel=False)


def _llama(layers: int, width: int, heads: int, key_value_heads: int, inner_width: int) -> _Preset:
    return _Preset(
        "llama",
        _sizes(layers, width, heads, inner_width)
        | {"num_key_value_heads": key_value_heads, "rms_norm_eps": 1e-6, "tie_word_embeddings": False},
    )


def _plainlm(layers: int, width: int, heads: int) -> _Preset:
    """SwiGLU of 8/3 the width, rounded up to a multiple of 256."""
    return _llama(layers, width, heads, heads, -(-8 * width // (3 * 256)) * 256)


PRESETS: dict[str, _Preset] = {
    "pythia-70m": _pythia(6, 512, 8, 2048),
    "pythia-160m": _pythia(12, 768, 12, 3072),
    "gpt-162m": _gpt(12, 768, 12, 3072),
    "gpt-405m": _gpt(24, 1024, 16, 4096),
    "gpt-834m": _gpt(24, 1536, 16, 6144),
    "gpt-1.4b": _gpt(24, 2048, 16, 8192),
    "gpt-2.7b": _gpt(32, 2560, 32, 10240),
    "llama-130m": _llama(12, 768, 12, 4, 2304),
    "llama-350m": _llama(22, 1024, 16, 4, 3392),
    "llama-1.1b": _llama(22, 2048, 32, 4, 5632),
    "plainlm-50m": _plainlm(6, 384, 6),
    "plainlm-76m": _plainlm(8, 512, 8),
    "plainlm-115m": _plainlm(10, 640, 10),
    "plainlm-162m": _plainlm(12, 768, 12),
    "plainlm-263m": _plainlm(15, 960, 15),
    "plainlm-402m": _plainlm(18, 1152, 18),
    "micro-neox": _pythia(4, 64, 2, 256),
    "micro-llama": _llama(4, 64, 4, 2, 192),
    "micro-olmo2": _Preset("olmo2", _sizes(4, 64, 4, 192) | {"num_key_value_heads": 2}),
    "micro-qwen3": _Preset("qwen3", _sizes(4, 64, 4, 192) | {"num_key_value_heads": 2, "head_dim": 16}),
    "micro-gpt2": _Preset("gpt2", {GPT2_NAMES[key]: value for key, value in _sizes(4, 64, 4, 256).items()}),
}


def preset(name: str, vocabulary_size: int, sequence_length: int, **overrides: Any) -> Model:
    """Return the recipe of the model `name` for a tokenizer and a context length.

    `overrides` are arguments of the Hugging Face config and win over everything, `vocab_size` included (Pythia pads its
    vocabulary to 50,304); of `rope_parameters` those that are given do.

    Raises:
        CoolbitsError: if there is no preset of that name; the message lists those there are.
    """
    if name not in PRESETS:
        raise CoolbitsError(f"model: the preset {name!r} is unknown; there are {', '.join(PRESETS)}")
    architecture, config = PRESETS[name]
    context = GPT2_NAMES["max_position_embeddings"] if architecture == "gpt2" else "max_position_embeddings"
    sizes = {"vocab_size": vocabulary_size, context: sequence_length}
    nested = {
        key: config[key] | value
        for key, value in overrides.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return Model(architecture=architecture, config=config | sizes | overrides | nested)
