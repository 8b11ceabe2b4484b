"""How much memory quantizing a model takes, by arithmetic: what `ptq` holds at its worst moment. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from coolbits.models.counts import parameter_counts
from coolbits.models.shapes import shape_of
from coolbits.study.recipes.methods import AWQ, CALIBRATED, GPTQ, RTN, Grid
from coolbits.study.recipes.ptq import Quantized
from coolbits.study.recipes.training import Model

# Tokens that go through a block at once; a longer sequence does, too. A calibration that fits runs each block once,
# also where layers read what quantized ones give (`ptq.calibration.run_quantizing`).
CHUNK_TOKENS = 16384
_FLOAT32, _FLOAT64 = 4, 8
# Bytes a weight, copies of all kinds: of the layers that GPTQ sweeps under one Hessian, besides weights and errors in
# the recipe's precision; of one layer that is rounded; the same where more is to be found than the largest weight of a
# group.
_SWEPT, _ROUNDED, _SEARCHED = 16, 20, 40
_FACTORED = 4  # matrices, with the Hessian itself, while it is factorized
_TURNED = 2  # more where it is rotated


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights of a model: of all of it, of what is read before the blocks, of its largest block and matrix.

    `quantized` are those of linear layers in blocks, `head` those of the output head, tied or not. `groups` are the
    largest block's layers that read the same: their outputs, together, and their inputs. `width` is that of the hidden
    states, `inner_width` the MLP's.
    """

    parameters: int
    outside: int
    block: int
    matrix: int
    quantized: int
    head: int
    groups: tuple[tuple[int, int], ...]
    width: int
    inner_width: int


@dataclass(frozen=True)
class Peak:
    """Bytes at the worst moment; where no accelerator computes, all are the host's."""

    host: int
    device: int


def sizes_of(model: Model) -> Sizes:
    """Return the sizes of the model that a recipe describes."""
    shape, counts = shape_of(model), parameter_counts(model)
    queries, keys = shape.heads * shape.head_width, shape.key_value_heads * shape.head_width
    groups = (
        (queries + 2 * keys, shape.width),
        (shape.width, queries),
        ((2 if shape.gated else 1) * shape.inner_width, shape.width),
        (shape.width, shape.inner_width),
    )
    norm = shape.width if shape.gated else 2 * shape.width
    return Sizes(
        parameters=counts.total,
        outside=counts.embedding + norm,
        block=(counts.matrices + counts.vectors - norm) // shape.layers,
        matrix=max(queries if shape.gated else queries + 2 * keys, shape.inner_width) * shape.width,
        quantized=counts.matrices,
        head=shape.vocabulary * shape.width,
        groups=groups,
        width=shape.width,
        inner_width=shape.inner_width,
    )


def peak_bytes(sizes: Sizes, recipes: Sequence[Quantized], stored: int, accelerator: bool) -> Peak:
    """Estimate the memory that quantizing one model by these recipes at once takes, libraries not counted.

    The host keeps the model at `stored` bytes a weight, finished layers packed, and the hidden states before and after
    a block. The device keeps one block in float32, a chunk's activations, and what the method needs: Hessians and their
    factors, copies of the layers at work. What lies outside of blocks is on it before the first one; the head, if it is
    quantized, behind the last. Methods that look at weights alone need neither hidden states nor blocks.
    """
    moved = accelerator or stored != _FLOAT32
    calibrated = any(isinstance(recipe.method, CALIBRATED) for recipe in recipes)
    block = _FLOAT32 * sizes.block if moved and calibrated else 0
    shared = sum(isinstance(recipe.method, GPTQ) and recipe.method.sequential == "none" for recipe in recipes)
    kept = stored * sizes.parameters
    hidden = max(_FLOAT32 * _tokens(recipe) * sizes.width for recipe in recipes)
    work = max(block + _working_bytes(sizes, recipe, max(shared, 1), accelerator) for recipe in recipes)
    heads = [_head_bytes(sizes, recipe, max(shared, 1), moved) for recipe in recipes if recipe.head]
    work = max([work, *heads])
    if hidden:
        watched = _FLOAT32 * sizes.outside if moved else 0
        work = max(work, watched + block + max(_activation_bytes(sizes, recipe) for recipe in recipes))
    host = kept + sum(_packed_bytes(sizes, recipe) for recipe in recipes) + 2 * hidden
    return Peak(host, work) if accelerator else Peak(host + work, 0)


def _tokens(recipe: Quantized) -> int:
    method = recipe.method
    return method.calibration.sequences * method.calibration.sequence_length if isinstance(method, CALIBRATED) else 0


def _packed_bytes(sizes: Sizes, recipe: Quantized) -> int:
    """Return the bytes of codes, scales and zero points, the latter two in float32 at most."""
    group = recipe.method.group_size or sizes.width
    weights = sizes.quantized + (sizes.head if recipe.head else 0)
    return round(weights * (recipe.method.bits + 64 / group) / 8)


def _activation_bytes(sizes: Sizes, recipe: Quantized) -> int:
    """Return the bytes of what a block holds of a chunk: its input, attention's four tensors or the MLP's, a norm's."""
    attention = 2 * sizes.groups[0][0] + 2 * sizes.width
    return _FLOAT32 * _chunk_tokens(recipe) * (3 * sizes.width + max(attention, 4 * sizes.inner_width))


def _chunk_tokens(recipe: Quantized) -> int:
    """Return the tokens that go through a block at once; 0 if none do."""
    if not isinstance(recipe.method, CALIBRATED):
        return 0
    return max(min(CHUNK_TOKENS, _tokens(recipe)), recipe.method.calibration.sequence_length)


def _paused_bytes(sizes: Sizes, recipe: Quantized) -> int:
    """Return the bytes of a forward pass that waits before the last layer of an MLP while that one is quantized.

    A calibration of one chunk goes so: there are a block's input, the residual, what the MLP and what the layer reads.
    """
    if (tokens := _tokens(recipe)) > CHUNK_TOKENS:
        return 0
    return _FLOAT32 * tokens * (3 * sizes.width + sizes.inner_width)


def _working_bytes(sizes: Sizes, recipe: Quantized, together: int, accelerator: bool) -> int:
    """Return the bytes that a method takes beside the block at work; `together` recipes share GPTQ's one pass."""
    weights = [rows * inputs for rows, inputs in sizes.groups]
    squares = [inputs**2 for _, inputs in sizes.groups]
    number = _number_bytes(recipe)
    summed = number + (_FLOAT32 if accelerator else number)  # a sum, and the Hessian made from it
    activations = _activation_bytes(sizes, recipe)
    match recipe.method:
        case GPTQ(sequential="layer"):
            steps = [_gptq_bytes(recipe, *pair, 1) for pair in zip(squares, weights, strict=True)]
            paused = _paused_bytes(sizes, recipe)
            return _FLOAT32 * sum(weights) + max(summed * max(squares) + activations, paused + max(steps))
        case GPTQ() as method:
            waiting = [number * sum(squares[index + 1 :]) for index in range(len(squares))]
            originals = 0 if method.sequential == "none" else _FLOAT32 * sum(weights)
            steps = [_gptq_bytes(recipe, *pair, together) for pair in zip(squares, weights, strict=True)]
            return originals + max(summed * sum(squares) + activations, *map(sum, zip(waiting, steps, strict=True)))
        case AWQ():
            states = _FLOAT32 * _tokens(recipe) * 4 * sizes.width  # as attention and the MLP read and give them
            search = number * sum(squares) + states + activations + _SEARCHED * max(weights)
            clip = number * (sum(squares) + 2 * max(squares)) + states + _SEARCHED * sizes.matrix
            return max(summed * sum(squares) + states + activations, search, clip)
        case _:
            return _rounded_bytes(recipe, sizes.matrix)


def _rounded_bytes(recipe: Quantized, weights: int) -> int:
    """Return the bytes that a layer of so many weights takes under a method that looks at weights alone."""
    match recipe.method:
        case RTN(grid=Grid(search=None)):
            return _ROUNDED * weights
        case _:
            return _SEARCHED * weights


def _head_bytes(sizes: Sizes, recipe: Quantized, together: int, moved: bool) -> int:
    """Return the bytes that the output head takes, for its turn a block of one layer; it makes no logits."""
    method = recipe.method
    if not isinstance(method, GPTQ):
        return _rounded_bytes(recipe, sizes.head)
    copies = moved + (method.sequential != "none")
    read = _FLOAT32 * 3 * sizes.width * _chunk_tokens(recipe)
    return copies * _FLOAT32 * sizes.head + read + _gptq_bytes(recipe, sizes.width**2, sizes.head, together)


def _gptq_bytes(recipe: Quantized, square: int, weights: int, together: int) -> int:
    """Return the bytes that layers of so many weights take under one Hessian of so many entries, it included."""
    factored = _FACTORED + (_TURNED if recipe.rotation else 0)
    number = _number_bytes(recipe)
    return max(number * factored * square, 2 * number * square + (_SWEPT + 2 * number) * together * weights)


def _number_bytes(recipe: Quantized) -> int:
    """Return the bytes of an entry of a Hessian."""
    return _FLOAT32 if isinstance(recipe.method, GPTQ) and recipe.method.precision == "float32" else _FLOAT64
