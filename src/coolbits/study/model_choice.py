"""From the study's choice of a model to its recipe, refused here if it could not be built or trained."""

from coolbits.models.presets import PRESETS, preset
from coolbits.models.shapes import check_fits
from coolbits.study.recipes.training import Model
from coolbits.study.schema import ModelChoice


def chosen_model(choice: ModelChoice, vocabulary_size: int, sequence_length: int) -> Model:
    """Return the recipe of a model for a tokenizer and a context length.

    Raises:
        CoolbitsError: if there is no such preset, sizes do not fit each other, the tokenizer or the context, or the
            library refuses an argument; without the run's name.
    """
    model = preset(choice.preset, vocabulary_size, sequence_length, **choice.config)
    check_fits(model, vocabulary_size, sequence_length)
    sizes = {key for key, value in PRESETS[choice.preset].config.items() if type(value) is int}
    if choice.config.keys() - sizes:
        # Seconds of imports, hence only for what is more than another size.
        from coolbits.models.build import outline_model

        outline_model(model)
    return model
