"""How much memory training a model takes on the device that computes, by arithmetic. Needs no torch."""

from coolbits.models.counts import parameter_counts
from coolbits.models.shapes import shape_of
from coolbits.study.recipes.training import Model, Muon, Optimizer, Precision, Storage
from coolbits.vision.presets import ImageCounts

_FLOAT32, _BFLOAT16, _INT64 = 4, 2, 8
_LOGIT_COPIES = 3  # their logarithms and two gradients, all in float32
# What a block keeps of a token for the backward pass: bytes for each of its width, under autocast to bfloat16 and in
# float32, and numbers for each of the MLP's inner width. Found by counting tensors of the library's blocks.
_KEPT = {
    "gpt_neox": (26, 44, 2),
    "gpt2": (20, 32, 5),
    "llama": (34, 40, 4),
    "olmo2": (50, 56, 4),
    "qwen3": (46, 56, 4),
}


def training_bytes(model: Model, optimizer: Optimizer, precision: Precision, tokens: int) -> int:
    """Estimate the bytes where a backward pass begins, with `tokens` in the micro batch; libraries are not counted.

    Weights and gradients are float32; under autocast the weights are there in bfloat16, too. Attention is taken to be
    fused; what compiling the blocks saves is not taken off.
    """
    weights = _bytes_a_weight(precision) * parameter_counts(model).total
    logits = _LOGIT_COPIES * _FLOAT32 * shape_of(model).vocabulary
    return weights + state_bytes(model, optimizer) + tokens * (kept_bytes(model, precision) + logits)


def classifier_bytes(counts: ImageCounts, optimizer: Optimizer, precision: Precision, images: int) -> int:
    """Estimate the bytes of training an image classifier, with `images` in the batch, where its backward pass begins.

    Each of the optimizer's states is taken to be of all weights.
    """
    states = sum(_stored_bytes(storage) for _, storage in optimizer.states)
    kept = (_BFLOAT16 if precision == "bfloat16" else _FLOAT32) * counts.kept + _INT64 * counts.pooled
    return round((_bytes_a_weight(precision) + states) * counts.parameters) + images * kept


def _bytes_a_weight(precision: Precision) -> int:
    """Return the bytes of a weight, of its gradient and of what autocast makes of it."""
    return 2 * _FLOAT32 + (_BFLOAT16 if precision == "bfloat16" else 0)


def kept_bytes(model: Model, precision: Precision) -> int:
    """Return the bytes that the blocks of a model keep of a token for the backward pass."""
    shape, (narrow, wide, copies) = shape_of(model), _KEPT[model.architecture]
    if precision == "bfloat16":
        return shape.layers * (narrow * shape.width + 2 * copies * shape.inner_width)
    return shape.layers * (wide * shape.width + _FLOAT32 * copies * shape.inner_width)


def state_bytes(model: Model, optimizer: Optimizer) -> int:
    """Return the bytes of an optimizer's states, those of norms and biases taken to be too small for 8-bit codes."""
    counts = parameter_counts(model)
    tables, muon = counts.embedding + counts.head, isinstance(optimizer, Muon)
    total = 0.0
    for name, storage in optimizer.states:
        # Muon's own state is of the matrices, AdamW's two are of all else.
        large = tables if muon and name != "momentum" else counts.matrices + (0 if muon else tables)
        small = 0 if muon and name == "momentum" else counts.vectors
        total += large * _stored_bytes(storage) + small * _FLOAT32
    return round(total)


def _stored_bytes(storage: Storage) -> float:
    """Return the bytes of an element of a large state."""
    return _FLOAT32 if storage.codec == "float32" else 1 + _FLOAT32 / storage.block_size
