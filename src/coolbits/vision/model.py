"""Image classifiers from recipes, with random weights by seed."""

from collections.abc import Sequence
from dataclasses import fields

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.vision import ImageModel


def build_classifier(recipe: ImageModel, channels: int, classes: Sequence[str], seed: int) -> PreTrainedModel:
    """Build the classifier of `recipe` on the CPU, in float32 and training mode, with random weights drawn by `seed`.

    The weights depend on the recipe, the images' channels and classes, and the seed alone.

    Raises:
        CoolbitsError: if a key of the config is not one of the architecture's, or the library refuses a value.
    """
    allowed = {field.name for field in fields(CONFIG_MAPPING[recipe.architecture])}
    allowed -= {field.name for field in fields(PreTrainedConfig)} | {"num_channels"}
    for key in recipe.config:
        if key not in allowed:
            known = ", ".join(sorted(allowed))
            raise CoolbitsError(f"model.config.{key} is not a key of {recipe.architecture}; known are {known}")
    names = dict(enumerate(classes))
    labels = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    try:
        config = AutoConfig.for_model(recipe.architecture, num_channels=channels, **labels, **recipe.config)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            model = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CoolbitsError(f"model.config of {recipe.architecture} is refused: {reason}") from None
    return model.train()
