"""Models from recipes, with random weights by seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.shapes import shape_of
from coolbits.study.recipes.training import Model

# The library's choice: PyTorch's own attention, or `eager` for architectures that have no other.
ATTENTION = None

# Library defaults for these name tokens of other vocabularies, drop activations, or keep a cache of keys and values
# that training and scoring never read.
_NEUTRAL = {
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "use_cache": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}


def build_config(recipe: Model) -> PreTrainedConfig:
    """Return the Hugging Face config of `recipe`: its arguments over neutral ones (no dropout, no special tokens).

    Raises:
        CoolbitsError: if a key is not one of the architecture's, dropout is not 0, or the library refuses a value.
    """
    shape_of(recipe)
    allowed = _config_keys(recipe.architecture)
    for key, value in recipe.config.items():
        if key not in allowed:
            known = ", ".join(sorted(allowed))
            raise CoolbitsError(f"model.config.{key} is not a key of {recipe.architecture}; known are {known}")
        if key.endswith(("dropout", "pdrop")) and value:
            raise CoolbitsError(f"model.config.{key} is {value}; models are trained without dropout, give 0")
    neutral = {key: value for key, value in _NEUTRAL.items() if key in allowed}
    with _refused(recipe):
        return AutoConfig.for_model(recipe.architecture, **neutral | recipe.config)


def build_model(recipe: Model, seed: int) -> PreTrainedModel:
    """Build the model of `recipe` on the CPU, in float32 and training mode, with random weights drawn by `seed`.

    The weights depend on the recipe and the seed alone: the global random state is neither read nor moved. Attention is
    PyTorch's `scaled_dot_product_attention` on every device.

    Raises:
        CoolbitsError: as `build_config`.
    """
    config = build_config(recipe)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), _refused(recipe):
        torch.default_generator.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=ATTENTION)
    model.generation_config.use_cache = True  # unlike training, `generate` reads the cache
    return model.train()


def outline_model(recipe: Model) -> PreTrainedModel:
    """Return the model of `recipe` on the meta device: modules, names, shapes and types, but no weights.

    Raises:
        CoolbitsError: as `build_config`.
    """
    config = build_config(recipe)
    with torch.device("meta"), _refused(recipe):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=ATTENTION)


@contextmanager
def _refused(recipe: Model) -> Iterator[None]:
    """Say in one sentence why the library refuses an argument of the config; a name it does not know is a KeyError."""
    try:
        yield
    except (StrictDataclassError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is no name that it knows" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CoolbitsError(f"model.config of {recipe.architecture} is refused: {reason}") from None


def _config_keys(architecture: str) -> set[str]:
    """Return the fields that the architecture's config class adds to those of every config."""
    shared = {field.name for field in fields(PreTrainedConfig)}
    return {field.name for field in fields(CONFIG_MAPPING[architecture])} - shared
