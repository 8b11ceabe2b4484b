"""Whether the difference of two models' weights is the difference of their functions."""

from coolbits.study.recipes.ptq import AWQ, Int8, Quantized


def beyond_weights(quantizer: Quantized) -> str | None:
    """Return what a quantizer does that a comparison weight by weight would misread, as a sentence's end; or None."""
    if isinstance(quantizer.method, AWQ):
        return "awq scales weights to and fro, which changes them but not the function"
    if isinstance(quantizer.method, Int8):
        return "int8 rounds what layers read, too, which no weight shows"
    if quantizer.activations is not None:
        return "activations rounds what layers read, which no weight shows"
    return None
