"""Whether a quantized model's weights tell how its function differs, and whether its loss is one to differentiate."""

from coolbits.study.recipes.methods import AWQ, Int8
from coolbits.study.recipes.ptq import Quantized

_UNTIED = "head: true unties the head from the embedding, of which the model has one weight and its quantized form two"


def why_incomparable(measure: str, subject: str, quantizer: Quantized, untied: bool = False) -> str | None:
    """Return, as a sentence, why the kind `measure` cannot compare a model with what `quantizer` makes of it, or None.

    `subject` is what is quantized, in the words of the caller; `untied`: its head was tied to the embedding, and the
    quantizer gives it a weight of its own.
    """
    reason = _UNTIED if untied else _beyond_weights(quantizer)
    if reason is None:
        return None
    compared = f"{measure} compares a model with its quantized form weight by weight"
    return f"{compared}, which does not describe {subject}: {reason}"


def why_no_curvature(subject: str, quantizer: Quantized) -> str | None:
    """Return, as a sentence, why the loss of what `quantizer` makes has no curvature to measure, or None."""
    reason = _rounded_inputs(quantizer)
    return reason and f"curvature is that of a smooth loss, which {subject} has not: {reason}, in steps without a slope"


def _beyond_weights(quantizer: Quantized) -> str | None:
    """Return what a quantizer does that a comparison weight by weight would misread, as a sentence's end; or None."""
    if isinstance(quantizer.method, AWQ):
        return "awq scales weights to and fro, which changes them but not the function"
    reason = _rounded_inputs(quantizer)
    return reason and f"{reason}, which no weight shows"


def _rounded_inputs(quantizer: Quantized) -> str | None:
    """Return by what a quantizer rounds what layers read while the model runs, as a sentence's end; or None."""
    if isinstance(quantizer.method, Int8):
        return "int8 rounds what layers read, too"
    return "activations rounds what layers read" if quantizer.activations is not None else None
